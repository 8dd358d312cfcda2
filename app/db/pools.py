"""A connection pool for an async engine that is used from several event loops: each loop has a queue of its own.

An asyncpg connection belongs to the loop that opened it. The stock pool hands it to any loop, which fails with
"attached to a different loop": in Celery tasks that call ``asyncio.run``, in tests, in a client that runs each request
in a loop of its own. Here a connection is only ever handed out in its own loop, and is closed with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only, greenlet_spawn

__all__ = ["LoopLocalQueuePool"]

_FIRST_CONNECT_POLL_SECONDS: Final = 0.005


class _LoopPool(AsyncAdaptedQueuePool):
    """The connections of one loop."""

    is_closed = False

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self.is_closed:
            super()._do_return_conn(record)
            return
        # Sessions that the loop's shutdown closes give their connection back when nobody will come for it.
        try:
            record.close()
        finally:
            self._dec_overflow()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        self.is_closed = True
        self.dispose()


@dataclass(frozen=True, slots=True)
class _LoopQueue:
    """The connections of one loop, and the suspended generator whose end closes them."""

    pool: _LoopPool
    closer: AsyncGenerator[None]


class LoopLocalQueuePool(AsyncAdaptedQueuePool):
    """A queue pool per event loop behind one engine. ``pool_size`` and ``max_overflow`` count for each loop.

    A loop that ends through ``asyncio.run``, ``asyncio.Runner`` or ``loop.shutdown_asyncgens()`` closes its
    connections. A loop that is closed without any of them leaves its sockets to the garbage collector.
    """

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        self._queues: dict[asyncio.AbstractEventLoop, _LoopQueue] = {}
        self._queues_lock = threading.Lock()
        self._first_connect = threading.Lock()
        self._is_connected = False

    def _do_get(self) -> ConnectionPoolEntry:
        pool = self._pool_of_running_loop()
        # The engine reports a lost server to this pool; the idle connections of every loop are stale then.
        pool._invalidate_time = self._invalidate_time
        if self._is_connected:
            return pool._do_get()
        return self._get_first(pool)

    def _get_first(self, pool: _LoopPool) -> ConnectionPoolEntry:
        """Open connections one at a time until one is there: SQLAlchemy's own lock for this belongs to one loop."""
        deadline = time.monotonic() + self._timeout
        while not self._first_connect.acquire(blocking=False):
            # Where the server does not answer, those who wait must not do so one after the other.
            if time.monotonic() > deadline:
                raise PoolTimeout(f"the first connection is not there after {self._timeout:g} s", code="3o7r")
            await_only(asyncio.sleep(_FIRST_CONNECT_POLL_SECONDS))
        try:
            entry = pool._do_get()
            self._is_connected = True
            return entry
        finally:
            self._first_connect.release()

    def _pool_of_running_loop(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is not None:
            return queue.pool
        pool = self._new_pool()
        closer = self._close_with_loop(loop, pool)
        with self._queues_lock:
            for other in [other for other in self._queues if other.is_closed()]:
                del self._queues[other]
            # Only the tasks of this loop reach this key, and there is no await since it was looked up.
            self._queues[loop] = _LoopQueue(pool, closer)
        # The first step is what makes the loop know the generator, and finish it when it shuts down.
        await_only(anext(closer))
        return pool

    def _new_pool(self) -> _LoopPool:
        return _LoopPool(
            self._creator,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    async def _close_with_loop(self, loop: asyncio.AbstractEventLoop, pool: _LoopPool) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            with self._queues_lock:
                if loop in self._queues and self._queues[loop].pool is pool:
                    del self._queues[loop]
            await greenlet_spawn(pool.close)

    def dispose(self) -> None:
        """Close the idle connections of the running loop now, those of other loops as soon as these run again."""
        loop = asyncio.get_running_loop()
        with self._queues_lock:
            queues, self._queues = self._queues, {}
        own = queues.pop(loop, None)
        if own is not None:
            await_only(own.closer.aclose())
        # The others' generators die here, with the last reference: each loop is told to finish its own.
        del own
        queues.clear()
        self.logger.info("Pool disposed. %s", self.status())

    def checkedin(self) -> int:
        """Return the number of idle connections, in all loops."""
        return sum(queue.pool.checkedin() for queue in self._snapshot())

    def checkedout(self) -> int:
        """Return the number of connections in use, in all loops."""
        return sum(queue.pool.checkedout() for queue in self._snapshot())

    def overflow(self) -> int:
        """Return the number of connections beyond ``pool_size``, over all loops; negative below it."""
        return sum(queue.pool.overflow() for queue in self._snapshot())

    def _snapshot(self) -> list[_LoopQueue]:
        with self._queues_lock:
            return list(self._queues.values())

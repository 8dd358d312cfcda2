"""The pool's book-keeping of event loops, without any connection."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.util import greenlet_spawn

from app.db.pools import LoopLocalQueuePool


def new_pool() -> LoopLocalQueuePool:
    """Return a pool that never connects."""
    return LoopLocalQueuePool(lambda: None, pool_size=3)


def test_one_queue_for_each_loop() -> None:
    """A loop has one queue for as long as it runs, and none when it has ended."""
    pool = new_pool()

    async def twice() -> bool:
        first = await greenlet_spawn(pool._pool_of_running_loop)
        return first is await greenlet_spawn(pool._pool_of_running_loop)

    assert asyncio.run(twice())
    assert pool._queues == {}


def test_a_loop_that_was_merely_closed_is_forgotten() -> None:
    """A loop closed without ``shutdown_asyncgens`` is forgotten when the next loop comes."""
    pool = new_pool()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(greenlet_spawn(pool._pool_of_running_loop))
    loop.close()
    assert list(pool._queues) == [loop]

    asyncio.run(greenlet_spawn(pool._pool_of_running_loop))

    assert pool._queues == {}


def test_status_counts_all_loops() -> None:
    """Size, idle and used connections are told for all loops together."""
    pool = new_pool()

    async def status() -> str:
        await greenlet_spawn(pool._pool_of_running_loop)
        return pool.status()

    assert asyncio.run(status()) == (
        "Pool size: 3  Connections in pool: 0 Current Overflow: -3 Current Checked out connections: 0"
    )


def test_waiting_for_the_first_connection_ends() -> None:
    """Who waits for another's first connection gives up after the pool's timeout, not after everybody else's."""
    pool = LoopLocalQueuePool(lambda: None, timeout=0.01)

    with pool._first_connect, pytest.raises(PoolTimeout, match=r"the first connection is not there after 0\.01 s"):
        asyncio.run(greenlet_spawn(pool.connect))


def test_dispose_outside_a_loop_changes_nothing() -> None:
    """``dispose`` where no loop runs is an error, and the pool still knows its loops' connections."""
    pool = new_pool()
    with asyncio.Runner() as runner:
        runner.run(greenlet_spawn(pool._pool_of_running_loop))
        with pytest.raises(RuntimeError, match="no running event loop"):
            pool.dispose()

        assert list(pool._queues) == [runner.get_loop()]


def test_a_new_pool_is_like_the_old_one() -> None:
    """``recreate``, which the engine calls on ``dispose``, keeps class and settings."""
    again = new_pool().recreate()

    assert isinstance(again, LoopLocalQueuePool)
    assert again.size() == 3

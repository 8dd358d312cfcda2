"""One async engine in many event loops: in turn, at once, in threads; each closes its connections when it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
import uvloop
from sqlalchemy import event, select, text

from app.db import async_engine, dispose_engines, get_async_session, get_sync_session
from app.db.pools import LoopLocalQueuePool

pytestmark = pytest.mark.usefixtures("no_connection_in_use")

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Give each implementation of event loops."""
    factory: NewLoop = request.param
    return factory


@pytest.fixture
def opened() -> Iterator[list[object]]:
    """Give the list of connections that the engine opens during the test."""
    seen: list[object] = []

    def note(connection: object, _record: object) -> None:
        seen.append(connection)

    event.listen(async_engine.sync_engine, "connect", note)
    yield seen
    event.remove(async_engine.sync_engine, "connect", note)


def pool() -> LoopLocalQueuePool:
    """Return the engine's pool."""
    return cast("LoopLocalQueuePool", async_engine.pool)


async def query() -> int:
    """Run one statement in a session of its own."""
    async with get_async_session() as session:
        return await session.scalar(select(1)) or 0


def test_one_loop_after_the_other(new_loop: NewLoop) -> None:
    """Twenty runs in loops of their own all work, and leave no connection in the pool."""
    for _ in range(20):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(query()) == 1

    assert pool().checkedin() == 0


def test_one_loop_pools_its_connections(opened: list[object], new_loop: NewLoop) -> None:
    """Within a loop a connection is used again; another loop opens its own."""
    for _ in range(2):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(query())
            runner.run(query())
            assert pool().checkedin() == 1

    assert len(opened) == 2


def test_loops_that_take_turns() -> None:
    """Loops that live side by side each keep to their own connections."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        for _ in range(3):
            assert first.run(query()) == second.run(query()) == 1
        assert pool().checkedin() == 2

    assert pool().checkedin() == 0


def test_loops_in_threads(new_loop: NewLoop) -> None:
    """Four threads with a loop each, ten tasks in each loop, on an engine that nothing has used: all work."""
    with asyncio.Runner() as runner:
        runner.run(dispose_engines())
    barrier = threading.Barrier(4)
    results: list[int] = []

    async def many() -> None:
        results.extend(await asyncio.gather(*(query() for _ in range(10))))

    def work() -> None:
        barrier.wait()
        with asyncio.Runner(loop_factory=new_loop) as own:
            own.run(many())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [1] * 40
    assert pool().checkedin() == 0


def test_dispose_closes_the_running_loops_connections() -> None:
    """``dispose_engines`` closes what is idle in its loop; the engines work on."""

    async def main() -> list[int]:
        await query()
        before = pool().checkedin()
        await dispose_engines()
        after = pool().checkedin()
        return [before, after, await query()]

    assert asyncio.run(main()) == [1, 0, 1]


@pytest.mark.chatdify_db(isolation="database")
def test_dispose_reaches_other_loops() -> None:
    """The idle connections of another loop are closed when that loop runs again."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(query())
        second.run(dispose_engines())
        gc.collect()

        async def until_closed() -> None:
            while _backends():  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.01)

        first.run(asyncio.wait_for(until_closed(), 20))


@pytest.mark.chatdify_db(isolation="database")
def test_the_server_keeps_no_connection() -> None:
    """After many loops the server has not one connection of theirs left."""
    for _ in range(10):
        asyncio.run(query())

    assert _backends() == 0


@pytest.mark.chatdify_db(isolation="database")
def test_a_lost_server_connection_in_every_loop() -> None:
    """When the server drops its clients, each loop finds out by itself and connects anew."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(query())
        second.run(query())
        with get_sync_session() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

        assert first.run(query()) == second.run(query()) == 1


def test_pool_limits_count_per_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """pool_size and max_overflow hold within a loop, and a waiting task gets a connection that comes back."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> str:
        engine = create_async_engine(
            async_engine.url,
            poolclass=LoopLocalQueuePool,
            pool_size=1,
            max_overflow=1,
            connect_args={"timeout": 20},
        )
        async with engine.connect(), engine.connect():
            status = f"{engine.pool.checkedout()} {engine.pool.overflow()}"  # type: ignore[attr-defined]  # of a QueuePool, which it is
            waiting = asyncio.create_task(_select_one(engine))
        assert await waiting == 1
        await engine.dispose()
        return status

    assert asyncio.run(main()) == "2 1"


def test_an_exhausted_pool_says_so() -> None:
    """A task that waits longer than the pool's timeout gets SQLAlchemy's TimeoutError."""
    from sqlalchemy.exc import TimeoutError as PoolTimeout
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> None:
        engine = create_async_engine(
            async_engine.url, poolclass=LoopLocalQueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01
        )
        async with engine.connect():
            with pytest.raises(PoolTimeout, match="QueuePool limit of size 1 overflow 0 reached"):
                await _select_one(engine)
        await engine.dispose()

    asyncio.run(main())


def test_a_generator_left_open_by_its_caller() -> None:
    """A session whose generator was abandoned is closed when its loop ends, and its connection with it."""
    from app.db import get_session

    async def main() -> None:
        generator: AsyncIterator[Any] = get_session()
        session = await anext(generator)
        await session.execute(select(1))
        kept.append(generator)

    kept: list[object] = []
    asyncio.run(main())

    assert pool().checkedin() == 0


async def _select_one(engine: Any) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(select(1)))


def _backends() -> int:
    """Return how many connections the server has to this database, beside the one that asks."""
    with get_sync_session() as session:
        return int(
            session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND application_name = 'chatdify' "
                    "AND backend_type = 'client backend'"
                )
            )
            or 0
        )

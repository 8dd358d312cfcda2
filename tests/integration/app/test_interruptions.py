"""Blocks that are broken off: cancelled, out of time, by an error of their own, with the server gone meanwhile.

Whatever ends a block is what its caller sees, and the connection is back in its pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import QueuePool

from app.db import (
    async_engine,
    delay_on_commit,
    get_async_session,
    get_readonly_session,
    get_session,
    get_streaming_session,
    get_sync_readonly_session,
    get_sync_session,
    on_commit,
)
from app.db.legacy import SessionLocal

from .models import MyModel

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.chatdify_db(isolation="database"),
    pytest.mark.usefixtures("tables", "no_connection_in_use"),
]

Scope = Callable[[], AbstractAsyncContextManager[Any]]

_SLOW_COMMIT = """
CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(60);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER take_long AFTER INSERT ON my_table
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take_long();
"""


def names() -> set[str]:
    """Return the stored names, as another session sees them."""
    with get_sync_session() as session:
        return set(session.scalars(select(MyModel.name)))


def _waiting() -> int:
    """Return how many sessions are in the middle of their COMMIT."""
    with get_sync_session() as session:
        return len(
            session.scalars(
                text(
                    "SELECT pid FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state = 'active' AND query LIKE 'COMMIT%'"
                )
            ).all()
        )


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - only the server and the pool know
            await asyncio.sleep(0.01)


def _idle() -> bool:
    return cast("QueuePool", async_engine.pool).checkedout() == 0


@pytest.fixture
def slow_commit(tables: None) -> None:
    """Let the COMMIT of a row take a minute."""
    with get_sync_session() as session:
        session.execute(text(_SLOW_COMMIT))


class Task:
    """A Celery task that remembers what it was sent with."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """Send it."""
        self.sent.append(args)


@pytest.mark.usefixtures("slow_commit")
@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_during_the_commit(times: int) -> None:
    """A task cancelled in the middle of its COMMIT, once or again and again, ends; nothing waits for that commit."""
    task = Task()

    async def work() -> None:
        async with get_async_session() as session:
            session.add(MyModel("x"))
            delay_on_commit(session, task, "x")

    running = asyncio.create_task(work())
    await _until(lambda: _waiting() == 1)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running

    await _until(_idle)
    assert task.sent == []
    async with get_async_session() as session:
        assert await session.scalar(select(1)) == 1


@pytest.mark.usefixtures("slow_commit")
async def test_out_of_time_during_the_commit() -> None:
    """``asyncio.timeout`` around a block ends it with a TimeoutError, in its COMMIT too; nothing is stored."""

    async def work() -> None:
        async with asyncio.timeout(None) as limit, get_async_session() as session:
            limits.append(limit)
            session.add(MyModel("lost"))

    limits: list[asyncio.Timeout] = []
    running = asyncio.create_task(work())
    await _until(lambda: _waiting() == 1)
    limits[0].reschedule(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        await running

    await _until(_idle)
    assert names() == set()


async def test_out_of_time_inside_the_block() -> None:
    """``asyncio.timeout`` inside a block breaks off one statement; its connection is lost, and the block knows it."""
    with pytest.raises(TimeoutError):
        async with get_async_session() as session:
            session.add(MyModel("lost"))
            await session.flush()
            async with asyncio.timeout(0.01):
                await session.execute(text("SELECT pg_sleep(60)"))

    await _until(_idle)
    assert names() == set()


async def test_cancelled_while_calls_run_after_the_commit() -> None:
    """The data is stored, so the other calls that waited for it still run, and tasks are sent; then the task ends."""
    task = Task()
    seen: list[str] = []
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def work() -> None:
        async with get_async_session() as session:
            session.add(MyModel("kept"))
            on_commit(session, endless)
            delay_on_commit(session, task, "kept")
            on_commit(session, seen.append, "kept")

    running = asyncio.create_task(work())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (task.sent, seen) == ([("kept",)], ["kept"])
    assert names() == {"kept"}


@asynccontextmanager
async def _sync() -> AsyncIterator[Any]:
    with get_sync_session() as session:
        yield session


@asynccontextmanager
async def _sync_readonly() -> AsyncIterator[Any]:
    with get_sync_readonly_session() as session:
        yield session


@asynccontextmanager
async def _legacy() -> AsyncIterator[Any]:
    with SessionLocal() as session:
        yield session


_SCOPES = {
    "get_sync_session": _sync,
    "get_sync_readonly_session": _sync_readonly,
    "SessionLocal": _legacy,
    "get_async_session": get_async_session,
    "get_session": asynccontextmanager(get_session),
    "get_readonly_session": asynccontextmanager(get_readonly_session),
    "get_streaming_session": asynccontextmanager(get_streaming_session),
}


@pytest.fixture(params=_SCOPES)
def scope(request: pytest.FixtureRequest) -> Scope:
    """Give each way to open a session for a block of code."""
    found: Scope = _SCOPES[request.param]
    return found


async def _ask(session: Any, sql: str) -> Any:
    found = session.scalar(text(sql))
    return await found if isinstance(session, AsyncSession) else found


async def test_an_error_while_the_server_goes_away(scope: Scope) -> None:
    """The error of the block travels on, though its rollback finds the connection lost; the session is closed."""
    with pytest.raises(ZeroDivisionError):
        async with scope() as session:
            pid = await _ask(session, "SELECT pg_backend_pid()")
            with get_sync_session() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
            raise ZeroDivisionError

    assert not session.in_transaction()
    async with scope() as session:
        assert await _ask(session, "SELECT 1") == 1


async def test_an_error_in_finally(scope: Scope) -> None:
    """An error that is raised while another one travels takes its place, as everywhere; nothing is stored."""
    with pytest.raises(KeyError) as caught:
        async with scope() as session:
            try:
                await _ask(session, "SELECT 1 / 0")
            finally:
                raise KeyError("in finally")

    assert "division by zero" in str(caught.value.__context__)

"""Sessions of both drivers side by side: what is stored, what is undone, what an error looks like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import kombu.exceptions
import pytest
from celery import Celery  # type: ignore[import-untyped]  # it has no types
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import (
    TransactionAborted,
    apply_async_on_commit,
    async_engine,
    delay_on_commit,
    get_async_session,
    get_session,
    get_sync_readonly_session,
    get_sync_session,
    is_retryable,
    on_commit,
    sqlstate,
)
from app.db.legacy import SessionLocal

from .models import Line, MyModel, Stamp
from .servers import free_port

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("tables", "no_connection_in_use")]

Scope = Callable[[], AbstractAsyncContextManager[Any]]


class _Awaitable:
    """A synchronous session in an asynchronous test: each of its methods may be awaited."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._session, name)
        if name not in {"execute", "scalar", "flush", "commit", "rollback"}:
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            return attribute(*args, **kwargs)

        return call

    @asynccontextmanager
    async def begin_nested(self) -> AsyncIterator[None]:
        with self._session.begin_nested():
            yield


def raw(session: Any) -> Any:
    """Return the session itself."""
    return getattr(session, "_session", session)


@asynccontextmanager
async def _sync_scope() -> AsyncIterator[_Awaitable]:
    with get_sync_session() as session:
        yield _Awaitable(session)


@pytest.fixture(params=[_sync_scope, get_async_session, asynccontextmanager(get_session)], ids=["sync", "async", "gen"])
def scope(request: pytest.FixtureRequest) -> Scope:
    """Give each way to open a session for a block of code."""
    found: Scope = request.param
    return found


def names() -> list[str]:
    """Return the stored names, as another session sees them."""
    with get_sync_session() as session:
        return list(session.scalars(select(MyModel.name).order_by(MyModel.id)))


async def test_commit_at_the_end(scope: Scope) -> None:
    """What is left uncommitted at the end of the block is committed, and the objects stay readable."""
    async with scope() as session:
        session.add(row := MyModel("x"))

    assert names() == ["x"]
    assert row.name == "x"


async def test_roll_back_on_an_error(scope: Scope) -> None:
    """An error in the block undoes it and travels on."""
    with pytest.raises(ZeroDivisionError):
        async with scope() as session:
            session.add(MyModel("lost"))
            await session.flush()
            raise ZeroDivisionError

    assert names() == []


async def test_commit_in_the_middle(scope: Scope) -> None:
    """Work goes on after a commit and after a rollback."""
    async with scope() as session:
        session.add(MyModel("first"))
        await session.commit()
        session.add(MyModel("undone"))
        await session.flush()
        await session.rollback()
        session.add(MyModel("last"))

    assert names() == ["first", "last"]


async def test_nothing_to_commit(scope: Scope) -> None:
    """A block that ends with a commit, or does nothing at all, is fine."""
    async with scope():
        pass
    async with scope() as session:
        session.add(MyModel("x"))
        await session.commit()

    assert names() == ["x"]


async def test_commit_that_fails(scope: Scope) -> None:
    """A constraint checked at COMMIT fails the block."""
    with pytest.raises(IntegrityError) as caught:
        async with scope() as session:
            session.add(Line(owner_id=4711))

    assert sqlstate(caught.value) == "23503"
    assert not is_retryable(caught.value)


async def test_swallowed_flush_error(scope: Scope) -> None:
    """A failed flush whose error was swallowed fails the block."""
    with pytest.raises(PendingRollbackError):
        async with scope() as session:
            session.add(MyModel(None))  # type: ignore[arg-type]  # wrong on purpose
            with pytest.raises(IntegrityError):
                await session.flush()

    assert names() == []


async def test_swallowed_statement_error(scope: Scope) -> None:
    """A failed statement whose error was swallowed fails the block, instead of losing its rows without a word."""
    with pytest.raises(TransactionAborted, match=r"division by zero \(SQLSTATE 22012\)"):
        async with scope() as session:
            session.add(MyModel("lost"))
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))

    assert names() == []


async def test_commit_again_after_a_swallowed_error(scope: Scope) -> None:
    """A second commit of an aborted transaction is refused like the first; after a rollback all is well."""
    async with scope() as session:
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT 1 / 0"))
        for _ in range(2):
            with pytest.raises(TransactionAborted):
                await session.commit()
        await session.rollback()
        session.add(MyModel("kept"))

    assert names() == ["kept"]


async def test_error_in_a_savepoint(scope: Scope) -> None:
    """An error in a savepoint costs the savepoint alone, as recommended."""
    async with scope() as session:
        session.add(MyModel("kept"))
        await session.flush()
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT 1 / 0"))

    assert names() == ["kept"]


async def test_savepoint_released_after_an_error_in_another(scope: Scope) -> None:
    """A savepoint may be released while the failure of an earlier one is still remembered."""
    async with scope() as session:
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT 1 / 0"))
        async with session.begin_nested():
            session.add(MyModel("kept"))

    assert names() == ["kept"]


@pytest.mark.chatdify_db(isolation="database")
async def test_the_server_goes_away_before_the_commit(scope: Scope) -> None:
    """A connection that is lost between a swallowed error and the commit is reported as lost."""
    with pytest.raises(DBAPIError) as caught:
        async with scope() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))
            with get_sync_session() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})

    assert is_retryable(caught.value)


async def test_a_failure_is_forgotten_with_its_transaction(scope: Scope) -> None:
    """A connection that failed once does not make later sessions suspicious."""
    with pytest.raises(DBAPIError):
        async with scope() as session:
            await session.execute(text("SELECT 1 / 0"))
    async with scope() as session:
        session.add(MyModel("x"))

    assert names() == ["x"]


async def test_server_made_values(scope: Scope) -> None:
    """Defaults and ``onupdate`` values of the server are there after a flush, without another query or an await."""
    async with scope() as session:
        session.add(row := Stamp("a"))
        await session.flush()
        first = row.changed
        row.text = "b"
        await session.flush()

        assert row.made.tzinfo is not None
        assert row.changed > first


async def test_on_commit(scope: Scope) -> None:
    """A call waits for the commit of either kind of session, and sees what was stored."""
    seen: list[object] = []
    async with scope() as session:
        session.add(MyModel("x"))
        on_commit(raw(session), lambda: seen.append(names()))
        assert seen == []

    assert seen == [["x"]]


async def test_on_commit_without_any_statement(scope: Scope) -> None:
    """A call registered in a block that used no database runs when the block ends, and not if it raises."""
    seen: list[str] = []
    async with scope() as session:
        on_commit(raw(session), seen.append, "ran")
    with pytest.raises(ZeroDivisionError):
        async with scope() as session:
            on_commit(raw(session), seen.append, "lost")
            raise ZeroDivisionError

    assert seen == ["ran"]


async def test_on_commit_and_savepoints(scope: Scope) -> None:
    """A savepoint that is rolled back takes its calls with it; those of a released one wait for the outer commit."""
    seen: list[str] = []
    async with scope() as session:
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested():
                on_commit(raw(session), seen.append, "lost")
                raise ZeroDivisionError
        async with session.begin_nested():
            on_commit(raw(session), seen.append, "kept")
        assert seen == []
        await session.commit()
        assert seen == ["kept"]
        on_commit(raw(session), seen.append, "lost too")
        await session.rollback()
        on_commit(raw(session), seen.append, "last")

    assert seen == ["kept", "last"]


async def test_a_call_that_fails_after_the_commit(scope: Scope) -> None:
    """The row is stored and the other calls run, then the error reaches the caller; the session has nothing open."""
    seen: list[str] = []

    def fail() -> None:
        raise LookupError("no such queue")

    with pytest.raises(LookupError, match="no such queue"):
        async with scope() as session:
            session.add(MyModel("kept"))
            on_commit(raw(session), fail)
            on_commit(raw(session), seen.append, "ran")

    assert (names(), seen) == (["kept"], ["ran"])


async def test_a_broker_that_is_down(scope: Scope) -> None:
    """A task that cannot be sent is an error after the commit, and not one to run the transaction again for."""
    celery_app = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    celery_app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}

    @celery_app.task(name="shop.confirm")  # type: ignore[untyped-decorator]  # Celery has no types
    def confirm() -> None: ...

    with pytest.raises(kombu.exceptions.OperationalError) as caught:
        async with scope() as session:
            session.add(MyModel("kept"))
            apply_async_on_commit(raw(session), confirm, retry=False)

    assert names() == ["kept"]
    assert not is_retryable(caught.value)


async def test_coroutine_on_commit() -> None:
    """A coroutine function is awaited after the commit, and may use the session."""
    seen: list[object] = []
    async with get_async_session() as session:

        async def count() -> None:
            seen.append(await session.scalar(select(func.count()).select_from(MyModel)))

        session.add(MyModel("x"))
        on_commit(session, count)

    assert seen == [1]


async def test_a_task_is_sent_from_a_thread() -> None:
    """With an async session the broker is talked to in a thread, where a task may also run an event loop."""

    class Task:
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
            seen.append(asyncio.run(work(*args)))

    async def work(name: str) -> list[str]:
        async with get_async_session() as inner:
            return list(await inner.scalars(select(MyModel.name).where(MyModel.name == name)))

    seen: list[object] = []
    async with get_async_session() as session:
        session.add(MyModel("x"))
        delay_on_commit(session, Task(), "x")

    assert seen == [["x"]]


async def test_sync_readonly_session() -> None:
    """The read-only session reads; the server refuses its writes."""
    with get_sync_readonly_session() as session:
        assert session.scalar(select(1)) == 1
        with pytest.raises(DBAPIError) as caught:
            session.execute(text("INSERT INTO my_table (name) VALUES ('x')"))

    assert sqlstate(caught.value) == "25006"
    with get_sync_session() as session:
        session.add(MyModel("x"))


async def test_cancelled_during_a_query() -> None:
    """A cancelled block gives its connection up, and the next one works."""
    started = asyncio.Event()

    async def work() -> None:
        async with get_async_session() as session:
            session.add(MyModel("lost"))
            await session.flush()
            started.set()
            await session.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with get_async_session() as session:
        assert await session.scalar(select(1)) == 1
    assert async_engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a QueuePool, which it is


@pytest.mark.chatdify_db(isolation="database")
async def test_deadlock_is_retryable() -> None:
    """The loser of a deadlock gets an error that says "try again", whichever driver it uses."""
    async with get_async_session() as session:
        session.add_all([MyModel("a"), MyModel("b")])

    async def swap(session: AsyncSession, first: str, second: str) -> None:
        update = text("UPDATE my_table SET name = name WHERE name = :name")
        await session.execute(update, {"name": first})
        await both.wait()
        await session.execute(update, {"name": second})

    async def one(first: str, second: str) -> None:
        async with get_async_session() as session:
            await swap(session, first, second)

    both = asyncio.Barrier(2)
    outcomes = await asyncio.gather(one("a", "b"), one("b", "a"), return_exceptions=True)

    errors = [outcome for outcome in outcomes if outcome is not None]
    assert [sqlstate(error) for error in errors] == ["40P01"]
    assert is_retryable(errors[0])


@pytest.mark.parametrize(
    "use",
    [
        lambda db: (db.add(MyModel("x")), db.commit(), db.close()),
        lambda db: (db.add(MyModel("x")), db.commit(), db.refresh(db.scalars(select(MyModel)).one()), db.close()),
        lambda db: (db.add(MyModel("y")), db.rollback(), db.add(MyModel("x")), db.commit(), db.close()),
        lambda db: (db.close(), db.add(MyModel("x")), db.commit(), db.close()),
    ],
    ids=["commit", "refresh", "rollback", "closed before"],
)
async def test_legacy_session_by_hand(use: Callable[[Any], object]) -> None:
    """Older code that commits, rolls back and closes by hand keeps working."""
    use(SessionLocal())

    assert names() == ["x"]


async def test_legacy_session_in_a_block() -> None:
    """A ``with`` block of the older factory stores what is left, undoes on an error, and knows ``begin``."""
    with SessionLocal() as db:
        db.add(MyModel("left"))
    with pytest.raises(ZeroDivisionError), SessionLocal() as db:
        db.add(MyModel("lost"))
        raise ZeroDivisionError
    with SessionLocal.begin() as db:
        db.add(MyModel("begun"))
    with SessionLocal() as db:
        db.add(MyModel(None))  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(IntegrityError):
            db.flush()
    with SessionLocal() as db, db.begin():
        db.add(MyModel("inner"))

    assert names() == ["left", "begun", "inner"]


async def test_legacy_calls_go_with_the_session() -> None:
    """A call that was registered before any statement is dropped by ``close``, though the session is used again."""
    seen: list[str] = []
    db = SessionLocal()
    on_commit(db, seen.append, "lost")
    db.close()
    db.add(MyModel("x"))
    on_commit(db, seen.append, "ran")
    db.commit()
    db.close()

    assert seen == ["ran"]


async def test_legacy_objects_expire() -> None:
    """Older code that commits and reads again in one session sees what others changed meanwhile."""
    with SessionLocal() as db:
        db.add(row := MyModel("old"))
        db.commit()
        with get_sync_session() as other:
            other.execute(text("UPDATE my_table SET name = 'new'"))

        assert row.name == "new"

"""on_commit: what runs, what is dropped and in which order, on a database in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from app.db import apply_async_on_commit, delay_on_commit, on_commit
from app.db.hooks import has_calls


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine whose savepoints are real."""
    engine = create_engine("sqlite://", poolclass=StaticPool)

    @event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    yield engine
    engine.dispose()


@pytest.fixture
def plain(engine: Engine) -> Iterator[Session]:
    """Give a plain session: the hooks need no special one."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def ran() -> list[str]:
    """Give the list that the calls of a test append to."""
    return []


def fail_with(error: BaseException) -> Callable[[], None]:
    """Return a function that raises *error*."""

    def fail() -> None:
        raise error

    return fail


class FakeTask:
    """Records what it was sent with, as a Celery task would send it."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, object, dict[str, object]]] = []

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """Record one sending."""
        self.sent.append((args, kwargs, options))


def test_runs_after_the_commit_in_order(plain: Session, ran: list[str]) -> None:
    """Calls wait for the commit, run in the order of registration, and run once."""
    plain.execute(text("SELECT 1"))
    on_commit(plain, ran.append, "first")
    on_commit(plain, ran.append, "second")
    assert ran == []
    plain.commit()
    assert ran == ["first", "second"]
    plain.commit()

    assert ran == ["first", "second"]


def test_registered_before_any_statement(plain: Session, ran: list[str]) -> None:
    """A call registered before the transaction began runs at its commit."""
    on_commit(plain, ran.append, "x")
    assert has_calls(plain)
    plain.commit()

    assert ran == ["x"]
    assert not has_calls(plain)


@pytest.mark.parametrize("end", [Session.rollback, Session.close], ids=["rollback", "close"])
def test_dropped_without_a_commit(plain: Session, ran: list[str], end: Callable[[Session], None]) -> None:
    """A transaction that is rolled back, or closed unfinished, takes its calls with it."""
    plain.execute(text("SELECT 1"))
    on_commit(plain, ran.append, "lost")
    end(plain)
    plain.execute(text("SELECT 1"))
    plain.commit()

    assert ran == []


def test_savepoint_rolled_back(plain: Session, ran: list[str]) -> None:
    """A savepoint that is rolled back takes the calls registered in it, and no others."""
    on_commit(plain, ran.append, "before")
    with pytest.raises(ZeroDivisionError), plain.begin_nested():
        on_commit(plain, ran.append, "inside")
        raise ZeroDivisionError
    on_commit(plain, ran.append, "after")
    plain.commit()

    assert ran == ["before", "after"]


def test_savepoint_released(plain: Session, ran: list[str]) -> None:
    """A released savepoint runs nothing: its calls wait for the outermost commit."""
    with plain.begin_nested():
        on_commit(plain, ran.append, "inside")
    assert ran == []
    plain.commit()

    assert ran == ["inside"]


def test_inner_released_outer_rolled_back(plain: Session, ran: list[str]) -> None:
    """The calls of a released savepoint go when the savepoint around it is rolled back."""
    outer = plain.begin_nested()
    with plain.begin_nested():
        on_commit(plain, ran.append, "inner")
    outer.rollback()
    plain.commit()

    assert ran == []


def test_with_begin(plain: Session, ran: list[str]) -> None:
    """``with session.begin():`` counts like commit()."""
    with plain.begin():
        on_commit(plain, ran.append, "x")
        assert ran == []

    assert ran == ["x"]


def test_call_uses_the_session(plain: Session, ran: list[str]) -> None:
    """A call may start a new transaction on the session, and register further calls for it."""

    def work() -> None:
        ran.append(str(plain.scalar(text("SELECT 7"))))
        on_commit(plain, ran.append, "next")

    on_commit(plain, work)
    plain.commit()
    assert ran == ["7"]
    plain.commit()

    assert ran == ["7", "next"]


def test_error_in_a_call(plain: Session, ran: list[str]) -> None:
    """An error in a call reaches the caller of commit() after the other calls; the data is stored."""
    plain.execute(text("CREATE TABLE t (n int)"))
    plain.execute(text("INSERT INTO t VALUES (1)"))
    on_commit(plain, fail_with(KeyError("missing")))
    on_commit(plain, ran.append, "still runs")
    with pytest.raises(KeyError, match="missing"):
        plain.commit()
    plain.rollback()

    assert ran == ["still runs"]
    assert plain.scalar(text("SELECT count(*) FROM t")) == 1


def test_errors_in_several_calls(plain: Session) -> None:
    """Several errors come as a group that says the transaction is committed."""
    on_commit(plain, fail_with(KeyError("a")))
    on_commit(plain, fail_with(IndexError(0)))

    with pytest.raises(ExceptionGroup, match="failed; the transaction is committed") as caught:
        plain.commit()

    assert [type(error) for error in caught.value.exceptions] == [KeyError, IndexError]


def test_a_task_that_is_cancelled_in_a_call(plain: Session, ran: list[str]) -> None:
    """The calls after it still run, though the task is to end; no other error takes the place of its cancellation."""
    on_commit(plain, fail_with(KeyError("missing")))
    on_commit(plain, fail_with(asyncio.CancelledError()))
    on_commit(plain, ran.append, "still runs")

    with pytest.raises(asyncio.CancelledError):
        plain.commit()

    assert ran == ["still runs"]


def test_coroutine_function_on_a_synchronous_session(plain: Session) -> None:
    """A coroutine function cannot be awaited here, and is refused when it is registered."""

    async def notify() -> None: ...

    with pytest.raises(TypeError, match=r"cannot await .*notify for a synchronous session; pass a function"):
        on_commit(plain, notify)


def test_keyword_arguments(plain: Session) -> None:
    """Arguments reach the function as they were given."""
    got: dict[str, object] = {}
    on_commit(plain, got.update, a=1)
    plain.commit()

    assert got == {"a": 1}


def test_scoped_session(engine: Engine, ran: list[str]) -> None:
    """A scoped session stands for its own session; others of its registry are not concerned."""
    scoped = scoped_session(sessionmaker(engine))
    on_commit(scoped, ran.append, "mine")
    with Session(engine) as other:
        other.execute(text("SELECT 1"))
        other.commit()
    assert ran == []
    scoped.commit()
    scoped.remove()

    assert ran == ["mine"]


def test_delay_on_commit(plain: Session) -> None:
    """A task is sent with its arguments once the transaction is committed."""
    task = FakeTask()
    delay_on_commit(plain, task, 1, b=2)
    assert task.sent == []
    plain.commit()

    assert task.sent == [((1,), {"b": 2}, {})]


def test_apply_async_on_commit(plain: Session) -> None:
    """Options of apply_async are passed on; what was rolled back is not sent."""
    task = FakeTask()
    apply_async_on_commit(plain, task, [1], {"b": 2}, countdown=3)
    plain.commit()
    apply_async_on_commit(plain, task, [4])
    plain.rollback()

    assert task.sent == [((1,), {"b": 2}, {"countdown": 3})]

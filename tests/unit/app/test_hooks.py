"""on_commit: what runs, what is dropped and in which order, on a database in memory."""

from __future__ import annotations

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
def session(engine: Engine) -> Iterator[Session]:
    """Give a plain session: the hooks need no special one."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def ran() -> list[str]:
    """Give the list that the calls of a test append to."""
    return []


def fail_with(error: Exception) -> Callable[[], None]:
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


def test_runs_after_the_commit_in_order(session: Session, ran: list[str]) -> None:
    """Calls wait for the commit, run in the order of registration, and run once."""
    session.execute(text("SELECT 1"))
    on_commit(session, ran.append, "first")
    on_commit(session, ran.append, "second")
    assert ran == []
    session.commit()
    assert ran == ["first", "second"]
    session.commit()

    assert ran == ["first", "second"]


def test_registered_before_any_statement(session: Session, ran: list[str]) -> None:
    """A call registered before the transaction began runs at its commit."""
    on_commit(session, ran.append, "x")
    assert has_calls(session)
    session.commit()

    assert ran == ["x"]
    assert not has_calls(session)


@pytest.mark.parametrize("end", [Session.rollback, Session.close], ids=["rollback", "close"])
def test_dropped_without_a_commit(session: Session, ran: list[str], end: Callable[[Session], None]) -> None:
    """A transaction that is rolled back, or closed unfinished, takes its calls with it."""
    session.execute(text("SELECT 1"))
    on_commit(session, ran.append, "lost")
    end(session)
    session.execute(text("SELECT 1"))
    session.commit()

    assert ran == []


def test_savepoint_rolled_back(session: Session, ran: list[str]) -> None:
    """A savepoint that is rolled back takes the calls registered in it, and no others."""
    on_commit(session, ran.append, "before")
    with pytest.raises(ZeroDivisionError), session.begin_nested():
        on_commit(session, ran.append, "inside")
        raise ZeroDivisionError
    on_commit(session, ran.append, "after")
    session.commit()

    assert ran == ["before", "after"]


def test_savepoint_released(session: Session, ran: list[str]) -> None:
    """A released savepoint runs nothing: its calls wait for the outermost commit."""
    with session.begin_nested():
        on_commit(session, ran.append, "inside")
    assert ran == []
    session.commit()

    assert ran == ["inside"]


def test_inner_released_outer_rolled_back(session: Session, ran: list[str]) -> None:
    """The calls of a released savepoint go when the savepoint around it is rolled back."""
    outer = session.begin_nested()
    with session.begin_nested():
        on_commit(session, ran.append, "inner")
    outer.rollback()
    session.commit()

    assert ran == []


def test_with_begin(session: Session, ran: list[str]) -> None:
    """``with session.begin():`` counts like commit()."""
    with session.begin():
        on_commit(session, ran.append, "x")
        assert ran == []

    assert ran == ["x"]


def test_call_uses_the_session(session: Session, ran: list[str]) -> None:
    """A call may start a new transaction on the session, and register further calls for it."""

    def work() -> None:
        ran.append(str(session.scalar(text("SELECT 7"))))
        on_commit(session, ran.append, "next")

    on_commit(session, work)
    session.commit()
    assert ran == ["7"]
    session.commit()

    assert ran == ["7", "next"]


def test_error_in_a_call(session: Session, ran: list[str]) -> None:
    """An error in a call reaches the caller of commit() after the other calls; the data is stored."""
    session.execute(text("CREATE TABLE t (n int)"))
    session.execute(text("INSERT INTO t VALUES (1)"))
    on_commit(session, fail_with(KeyError("missing")))
    on_commit(session, ran.append, "still runs")
    with pytest.raises(KeyError, match="missing"):
        session.commit()
    session.rollback()

    assert ran == ["still runs"]
    assert session.scalar(text("SELECT count(*) FROM t")) == 1


def test_errors_in_several_calls(session: Session) -> None:
    """Several errors come as a group that says the transaction is committed."""
    on_commit(session, fail_with(KeyError("a")))
    on_commit(session, fail_with(IndexError(0)))

    with pytest.raises(ExceptionGroup, match="failed; the transaction is committed") as caught:
        session.commit()

    assert [type(error) for error in caught.value.exceptions] == [KeyError, IndexError]


def test_coroutine_function_on_a_synchronous_session(session: Session) -> None:
    """A coroutine function cannot be awaited here, and is refused when it is registered."""

    async def notify() -> None: ...

    with pytest.raises(TypeError, match=r"cannot await .*notify for a synchronous session; pass a function"):
        on_commit(session, notify)


def test_keyword_arguments(session: Session) -> None:
    """Arguments reach the function as they were given."""
    got: dict[str, object] = {}
    on_commit(session, got.update, a=1)
    session.commit()

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


def test_delay_on_commit(session: Session) -> None:
    """A task is sent with its arguments once the transaction is committed."""
    task = FakeTask()
    delay_on_commit(session, task, 1, b=2)
    assert task.sent == []
    session.commit()

    assert task.sent == [((1,), {"b": 2}, {})]


def test_apply_async_on_commit(session: Session) -> None:
    """Options of apply_async are passed on; what was rolled back is not sent."""
    task = FakeTask()
    apply_async_on_commit(session, task, [1], {"b": 2}, countdown=3)
    session.commit()
    apply_async_on_commit(session, task, [4])
    session.rollback()

    assert task.sent == [((1,), {"b": 2}, {"countdown": 3})]

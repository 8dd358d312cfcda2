"""The transcript: what every SQLAlchemy engine of the process executes, for whom, and from which line of the project.

One recorder for the process, from the start of the database to its end. The rule: an event handler notes what is at
hand and makes no text, since it runs for every statement of every test.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from pytest_chatdify_db.tracing import actors, asgi
from pytest_chatdify_db.tracing.callers import Callers
from pytest_chatdify_db.tracing.statements import Statement

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, ExceptionContext, ExecutionContext
    from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
    from sqlalchemy.pool import ManagesConnection

#: How many statements of a test are kept: more than any report shows.
_LONGEST: Final = 1_000
_ACTOR: Final = "chatdify_db_actor"
_CLAIMED: Final = "chatdify_db_claimed"
_CLIENT: Final = "chatdify_db_client"
_RUNNING: Final = "_chatdify_db_running"
_WRAPPED: Final = re.compile(r"<class '(?:\w+\.)*(\w+)'>: (.*)")
_RELATIONSHIP: Final = "chatdify_db_relationship"


class Running(NamedTuple):
    """A statement that is being executed.

    Args:
        statement: The statement.
        began: When it began, on the clock of ``perf_counter``.
        blocks_thread: Whether its thread does nothing else meanwhile.
    """

    statement: Statement
    began: float
    blocks_thread: bool


class Claim(Protocol):
    """Takes note of whose connection one is."""

    def __call__(self, client: int, *, is_own: bool) -> None:
        """Note whether the connection *client* works for the test itself now."""


class Transcript:
    """What was executed in the running test.

    Args:
        root: The directory to which the paths of lines are relative.

    Attributes:
        statements: The statements of the running test, the oldest of very many left out.
        actors: Who acts in the running test.
        callers: Finds lines of the project.
        stray: Writes that were executed while no test ran.
        running: What is being executed now, by the identity of each statement.
        claim: Told of each connection that a session of the test itself begins and ends to use; None if nobody asks.
    """

    def __init__(self, root: Path) -> None:
        self.statements: deque[Statement] = deque(maxlen=_LONGEST)
        self.actors = actors.Actors()
        self.callers = Callers(root)
        self.stray: list[Statement] = []
        self.running: dict[int, Running] = {}
        self.claim: Claim | None = None
        self._is_test_running = True
        self._taps: list[list[Statement]] = []
        self._lock = threading.Lock()
        self._undo = ExitStack()

    # The test run's side -------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to listen."""
        from sqlalchemy.engine import Engine
        from sqlalchemy.orm import Session

        for name, note in (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            ("handle_error", self._failed),
            ("commit", lambda connection: self._ended(connection, "COMMIT")),
            ("rollback", lambda connection: self._ended(connection, "ROLLBACK")),
        ):
            self._listen(Engine, name, note)
        self._listen(Session, "after_begin", self._began)
        if self.claim is not None:
            self._listen(Session, "after_transaction_end", self._release)
        asgi.name_requests(self.actors, self._undo)

    def close(self) -> None:
        """Listen no longer."""
        self._undo.close()

    def begin_test(self) -> list[Statement]:
        """Begin anew for another test; return the writes since the last one ended."""
        stray, self.stray = self.stray, []
        self._is_test_running = True
        self.statements.clear()
        self.running.clear()
        self.actors.begin_anew()
        asgi.name_requests(self.actors, self._undo)
        return stray

    def end_test(self) -> None:
        """Note that what follows is in no test."""
        self._is_test_running = False

    @contextmanager
    def tapped(self) -> Iterator[list[Statement]]:
        """Give a list that grows by each statement, transaction control left out."""
        tap: list[Statement] = []
        with self._lock:
            self._taps.append(tap)
        try:
            yield tap
        finally:
            with self._lock:
                # By identity: two empty lists are equal.
                self._taps = [each for each in self._taps if each is not tap]

    @staticmethod
    def own(session: Session, name: str) -> None:
        """Have what *session* executes be on behalf of *name*."""
        session.info[_ACTOR] = name

    def last(self, client: int, sql: str) -> Statement | None:
        """Return the last statement with the text *sql* of the connection *client*."""
        for statement in reversed(tuple(self.statements)):
            if statement.client == client and statement.was_sent_as(sql):
                return statement
        return None

    def latest_of(self, client: int) -> Statement | None:
        """Return the last statement of the connection *client*."""
        return next((each for each in reversed(tuple(self.statements)) if each.client == client), None)

    def first_in_transaction(self, client: int) -> Statement | None:
        """Return the first statement of the transaction that the connection *client* is in."""
        first = None
        for statement in reversed(tuple(self.statements)):
            if statement.client == client:
                if statement.sql in {"COMMIT", "ROLLBACK"}:
                    break
                first = statement
        return first

    @contextmanager
    def naming_lazy_loads(self) -> Iterator[None]:
        """Have each statement that loads a relationship lazily say which one."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        event.listen(Session, "do_orm_execute", _name_relationship)
        try:
            yield
        finally:
            event.remove(Session, "do_orm_execute", _name_relationship)

    # SQLAlchemy's side ---------------------------------------------------------------------------------------------

    def _listen(self, target: object, name: str, note: Callable[..., None]) -> None:
        from sqlalchemy import event

        event.listen(target, name, note)
        self._undo.callback(event.remove, target, name, note)

    def _began(self, session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
        name = session.info.get(_ACTOR)
        if name is None:
            return
        setattr(connection, _ACTOR, name)  # an execution option would cost as much as the whole note
        client = _client(connection) if self.claim is not None else None
        claimed = session.info.setdefault(_CLAIMED, set())
        if self.claim is not None and client is not None and client not in claimed:
            self.claim(client, is_own=True)
            claimed.add(client)

    def _release(self, session: Session, transaction: SessionTransaction) -> None:
        claimed = session.info.get(_CLAIMED)
        while self.claim is not None and claimed and transaction.parent is None:
            self.claim(claimed.pop(), is_own=False)

    def _before(
        self,
        connection: Connection,
        _cursor: object,
        sql: str,
        parameters: object,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        statement = Statement(
            sql,
            connection.dialect.driver,
            executemany,
            getattr(connection, _ACTOR, None) or actors.current(),
            _client(connection),
            self.callers.find(2),
            parameters,
            _names(context),
            _relationship(context),
            thread=threading.get_ident(),
        )
        self._note(statement)
        if self._taps and not statement.is_control:
            with self._lock:
                for tap in self._taps:
                    tap.append(statement)
        if context is not None:
            running = Running(statement, perf_counter(), not connection.dialect.is_async)
            self.running[id(statement)] = running
            setattr(context, _RUNNING, running)

    def _after(
        self, _connection: Connection, cursor: Any, _sql: str, _parameters: object, context: object, _many: bool
    ) -> None:
        statement = self._finished(context)
        if statement is not None:
            rows = getattr(cursor, "rowcount", -1)
            statement.rows = rows if isinstance(rows, int) and rows >= 0 else None

    def _failed(self, failure: ExceptionContext) -> None:
        statement = self._finished(failure.execution_context)
        if statement is not None and not statement.error:
            statement.error = _described(failure.original_exception)

    def _ended(self, connection: Connection, sql: str) -> None:
        options = connection.get_execution_options()
        self._note(
            Statement(
                # In this mode there is nothing to roll back any more: each statement has been committed.
                "COMMIT" if options.get("isolation_level") == "AUTOCOMMIT" else sql,
                connection.dialect.driver,
                actor=getattr(connection, _ACTOR, None) or actors.current(),
                client=_client(connection),
                line=self.callers.find(2),
            )
        )

    def _finished(self, context: object) -> Statement | None:
        """Return the statement that *context* is about, its duration noted."""
        running: Running | None = getattr(context, _RUNNING, None)
        if running is None:
            return None
        self.running.pop(id(running.statement), None)
        running.statement.seconds = perf_counter() - running.began
        return running.statement

    def _note(self, statement: Statement) -> None:
        self.statements.append(statement)
        if not self._is_test_running and statement.is_write:
            self.stray.append(statement)


def _name_relationship(load: ORMExecuteState) -> None:
    path = load.loader_strategy_path
    if load.is_relationship_load and load.lazy_loaded_from is not None and path is not None:
        load.update_execution_options(**{_RELATIONSHIP: str(path[-1])})


def _client(connection: Connection) -> int | None:
    """Return the number of the connection, the process id that the driver was told; None if there is none."""
    try:
        return client_of(connection.connection)
    except Exception:  # noqa: BLE001 - a transcript must not break what it records
        return None


def client_of(pooled: ManagesConnection) -> int | None:
    """Return the number by which the sandbox knows the connection; None for another database than PostgreSQL."""
    if _CLIENT not in pooled.info:
        pooled.info[_CLIENT] = _pid(pooled.driver_connection)
    number: int | None = pooled.info[_CLIENT]
    return number


def _pid(driver_connection: Any) -> int | None:
    for name in ("get_server_pid", "get_backend_pid"):  # asyncpg, psycopg2
        if hasattr(driver_connection, name):
            return int(getattr(driver_connection, name)())
    pid = getattr(getattr(driver_connection, "info", None), "backend_pid", None)  # psycopg 3
    return None if pid is None else int(pid)


def _names(context: Any) -> Sequence[str] | None:
    compiled = getattr(context, "compiled", None)
    names: Sequence[str] | None = getattr(compiled, "positiontup", None)
    return names


def _relationship(context: Any) -> str:
    options = getattr(context, "execution_options", None)
    return str(options.get(_RELATIONSHIP, "")) if options else ""


def _described(error: BaseException) -> str:
    """Return the class and the first line of *error*; SQLAlchemy puts asyncpg's class into the text of its own."""
    kind, text = type(error).__name__, str(error).strip().partition("\n")[0]
    wrapped = _WRAPPED.match(text)
    if wrapped is not None:
        kind, text = wrapped[1], wrapped[2]
    return f"{kind}: {text}" if text else kind

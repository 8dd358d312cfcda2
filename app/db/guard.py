"""A COMMIT that PostgreSQL would turn into a silent ROLLBACK is an error instead.

After a failed statement the server refuses everything but ROLLBACK, and answers COMMIT with ROLLBACK: no error, and
all rows of the transaction gone. SQLAlchemy notices this for a failed flush, not for a failed ``execute``. So a
connection on which a statement failed is asked once more before it commits; any other commit costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from app.db.errors import TransactionAborted, sqlstate

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine, ExceptionContext
    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["refuse_silent_rollback", "watch_failures"]

_FAILURE: Final = "app.db.guard.failure"
_CONNECTIONS: Final = "app.db.guard.connections"
IN_FAILED_TRANSACTION: Final = "25P02"


def watch_failures(engine: Engine) -> None:
    """Remember on each connection of *engine* that a statement failed in the transaction under way."""
    event.listen(engine, "handle_error", _remember_failure)


def refuse_silent_rollback(session_class: type[Session]) -> None:
    """Make ``commit()`` of *session_class* raise :class:`TransactionAborted` where it would lose the transaction."""
    event.listen(session_class, "after_begin", _forget_failure)
    event.listen(session_class, "before_commit", _check_connections)


def _remember_failure(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or context.is_disconnect or connection.invalidated or connection.closed:
        return
    code = sqlstate(context.original_exception)
    # The 25P02 that follows a failure says nothing about what failed.
    if code is not None and code != IN_FAILED_TRANSACTION:
        # The text alone: the exception would keep alive every frame it passed through.
        reason = str(context.original_exception).strip().partition("\n")[0]
        connection.info[_FAILURE] = f"{reason} (SQLSTATE {code})"


def _forget_failure(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    connection.info.pop(_FAILURE, None)
    known = session.info.get(_CONNECTIONS, ())
    session.info[_CONNECTIONS] = [*(other for other in known if not other.closed), connection]


def _check_connections(session: Session) -> None:
    if session.in_nested_transaction():
        return
    for connection in session.info.get(_CONNECTIONS, ()):
        if not connection.closed and not connection.invalidated and _FAILURE in connection.info:
            _ask_server(connection)


def _ask_server(connection: Connection) -> None:
    """Raise if the transaction is aborted; a savepoint or a rollback may have saved it since the failure."""
    try:
        connection.execute(text("SELECT 1"))
    except DBAPIError as error:
        if sqlstate(error) != IN_FAILED_TRANSACTION:
            raise
        raise TransactionAborted.after(connection.info[_FAILURE]) from error
    del connection.info[_FAILURE]

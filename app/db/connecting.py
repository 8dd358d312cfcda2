"""A connection that cannot be made: the same error from both drivers, which tells whether to try again.

psycopg2 raises ``OperationalError`` whatever the reason. asyncpg raises ``OSError``, ``TimeoutError`` or an error of
its own, from outside SQLAlchemy's tree: here it becomes an ``OperationalError`` too. Nothing was sent, so another
attempt is safe; it is worth it unless the server has refused this client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from app.db.errors import sqlstate

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

__all__ = ["is_refused", "mark_failed_connects", "wrap_failed_connects"]

# What another attempt cannot change: who this client is, what it asks for, which certificates it trusts.
_REFUSALS: Final = frozenset({"28000", "28P01", "3D000", "42501", "55000"})
# libpq gives no SQLSTATE for a connection that failed, only the text.
_REFUSAL_TEXTS: Final = (
    "authentication failed",
    "certificate",
    "does not exist",
    "does not support SSL",
    "is not currently accepting connections",
    "is not permitted to log in",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    "rejected SSL upgrade",
)


def mark_failed_connects(engine: Engine) -> None:
    """Make a failed connect of *engine* count as a lost connection, unless the server has refused this client."""
    event.listen(engine, "handle_error", _mark)


def wrap_failed_connects(engine: Engine) -> None:
    """Make a failed connect of *engine*, which is on asyncpg, an ``OperationalError``."""
    event.listen(engine, "do_connect", _connect)


def is_refused(error: BaseException) -> bool:
    """Return whether *error*, of a connection that could not be made, would be the same at the next attempt.

    Args:
        error: The driver's exception. Where there is no SQLSTATE its English text decides.
    """
    code = sqlstate(error)
    return code in _REFUSALS if code is not None else any(text in str(error) for text in _REFUSAL_TEXTS)


def _mark(context: ExceptionContext) -> None:
    failed_to_connect = context.connection is None and not context.is_pre_ping
    if failed_to_connect and isinstance(context.original_exception, context.dialect.loaded_dbapi.OperationalError):
        context.is_disconnect = not is_refused(context.original_exception)


def _connect(dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]) -> DBAPIConnection:
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    dbapi = dialect.loaded_dbapi
    try:
        return dialect.connect(*arguments, **options)
    except (OSError, PostgresError, InterfaceError, InternalClientError, dbapi.Error) as error:
        # SQLAlchemy 2.1 wraps some of them, in a class that says nothing.
        cause = (isinstance(error, dbapi.Error) and error.__cause__) or error
        # asyncio's TimeoutError has no text.
        reason = str(cause) or "no answer within DB_CONNECT_TIMEOUT"
        raise dbapi.OperationalError(f"{type(cause).__name__}: {reason}") from cause

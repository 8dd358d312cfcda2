"""What can go wrong with the database, and how to tell: the layer's own errors, and questions to ask any exception.

    DatabaseError
    ├── DatabaseUnavailable   the health check got no answer
    ├── DriverMissing         the package that talks to PostgreSQL is not installed
    └── TransactionAborted    COMMIT would have been a ROLLBACK

Pure: the standard library only. Exceptions are known by what they carry, since the two drivers wrap the same server
error in different classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Self

__all__ = ["DatabaseError", "DatabaseUnavailable", "DriverMissing", "TransactionAborted", "is_retryable", "sqlstate"]

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK_DETECTED: Final = "40P01"
_RETRYABLE: Final = frozenset({SERIALIZATION_FAILURE, DEADLOCK_DETECTED})


class DatabaseError(RuntimeError):
    """Base of the errors this layer raises itself. The driver's errors reach the caller as SQLAlchemy wraps them."""


class DatabaseUnavailable(DatabaseError):
    """The database did not answer the health check."""

    @classmethod
    def because(cls, where: str, cause: str, timeout: float) -> Self:
        """Return the error for a check of *where* that ended with *cause* within *timeout* seconds."""
        return cls(
            f"The database did not answer.\n"
            f"Cause: {cause}\n"
            f"Tried: to connect to {where} and run SELECT 1, for {timeout:g} s.\n"
            "To fix this, either:\n"
            "  - see whether the server accepts connections:  pg_isready -h HOST -p PORT\n"
            "  - check where this process connects to:  echo $DATABASE_URL, or $DB_HOST and $DB_PORT\n"
            "  - if connections are used up, raise the pool's limits:  export DB_POOL_SIZE=20 DB_MAX_OVERFLOW=40"
        )


class DriverMissing(DatabaseError):
    """The package of a database driver is not installed."""

    @classmethod
    def named(cls, engine: str, driver: str, package: str) -> Self:
        """Return the error for *engine*, which needs *driver* from *package*."""
        return cls(
            f"{engine} cannot be made.\n"
            f"Cause: the driver {driver} is not installed.\n"
            f"Tried: import {driver}\n"
            "To fix this, either:\n"
            f"  - install it:  pip install {package}\n"
            "  - use the other kind of session: get_sync_session needs psycopg2 alone, get_session asyncpg alone"
        )


class TransactionAborted(DatabaseError):
    """A statement failed, the error was swallowed, and the transaction was about to be committed all the same.

    PostgreSQL answers such a COMMIT with ROLLBACK, and no error: everything written in the transaction would be lost
    without a word.
    """

    @classmethod
    def after(cls, failure: str) -> Self:
        """Return the error for a transaction in which the statement described by *failure* went wrong."""
        return cls(
            "The transaction cannot be committed: PostgreSQL would silently roll it back.\n"
            f"Cause: an earlier statement failed, and its error was caught without undoing it: {failure}\n"
            "Tried: SELECT 1 before COMMIT; the server refuses everything until the transaction is rolled back.\n"
            "To fix this, either:\n"
            "  - run a statement that may fail in a savepoint:  async with session.begin_nested(): ...\n"
            "  - undo the transaction where the error is caught:  await session.rollback()\n"
            "  - let the error travel: the session rolls back by itself"
        )


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE of *error*, or None if the server sent none.

    Args:
        error: An exception of SQLAlchemy, psycopg2 or asyncpg, or one raised from such a one.
    """
    for each in _chain(error):
        for carrier in (getattr(each, "orig", None), each):
            code = getattr(carrier, "pgcode", None) or getattr(carrier, "sqlstate", None)
            if isinstance(code, str):
                return code
    return None


def is_retryable(error: BaseException) -> bool:
    """Return whether the same transaction, run again from its start, may well succeed.

    True for a serialization failure (40001), a deadlock (40P01), a lost connection, and one that could not be made:
    refused, reset, not in time, to a server that starts, stops or is full. False where the server refused this client:
    a wrong password, no such database. After a lost connection it is not known whether a COMMIT under way took effect:
    repeat only what may happen twice.

    Args:
        error: Any exception.
    """
    return sqlstate(error) in _RETRYABLE or any(
        getattr(each, "connection_invalidated", False) for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what it was explicitly raised from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__

"""Errors: the questions asked of any exception, and the text of each of the layer's own."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db.errors import DatabaseError, DatabaseUnavailable, DriverMissing, TransactionAborted, is_retryable, sqlstate


class DriverError(Exception):
    """What a driver raises: psycopg2 and SQLAlchemy's asyncpg adapter call the code ``pgcode``."""

    def __init__(self, code: str | None) -> None:
        super().__init__("driver")
        self.pgcode = code


class AsyncpgError(Exception):
    """What asyncpg itself raises."""

    sqlstate = "40001"


def wrapped(code: str | None, *, invalidated: bool = False) -> DBAPIError:
    """Return an error as SQLAlchemy wraps it."""
    return OperationalError("SELECT 1", None, DriverError(code), connection_invalidated=invalidated)


def raised_from(cause: BaseException) -> BaseException:
    """Return an error of the application that was raised from *cause*."""
    error = LookupError("no such order")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wrapped("40P01"), "40P01"),
        (wrapped(None), None),
        (DriverError("23505"), "23505"),
        (AsyncpgError(), "40001"),
        (raised_from(wrapped("23503")), "23503"),
        (ConnectionRefusedError(), None),
    ],
)
def test_sqlstate(error: BaseException, code: str | None) -> None:
    """The code is found whoever wraps the error; an error that is not the server's has none."""
    assert sqlstate(error) == code


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (wrapped("40001"), True),
        (wrapped("40P01"), True),
        (wrapped("57P01", invalidated=True), True),
        (raised_from(wrapped("40001")), True),
        (wrapped("23505"), False),
        (wrapped(None), False),
        (ValueError(), False),
    ],
)
def test_is_retryable(error: BaseException, answer: bool) -> None:
    """Conflicts between transactions and lost connections are worth another try, nothing else is."""
    assert is_retryable(error) is answer


def test_a_loop_of_causes_ends() -> None:
    """An error that is its own cause is asked once."""
    error = ValueError()
    error.__cause__ = error

    assert sqlstate(error) is None


def test_database_unavailable() -> None:
    """The text says what failed, why, what was tried, and what to do."""
    assert str(DatabaseUnavailable.because("postgresql://u:***@h/db", "refused", 1.5)) == (
        "The database did not answer.\n"
        "Cause: refused\n"
        "Tried: to connect to postgresql://u:***@h/db and run SELECT 1, for 1.5 s.\n"
        "To fix this, either:\n"
        "  - see whether the server accepts connections:  pg_isready -h HOST -p PORT\n"
        "  - check where this process connects to:  echo $DATABASE_URL, or $DB_HOST and $DB_PORT\n"
        "  - if connections are used up, raise the pool's limits:  export DB_POOL_SIZE=20 DB_MAX_OVERFLOW=40"
    )


def test_driver_missing() -> None:
    """The text names the engine, its driver, and the package that has it."""
    assert str(DriverMissing.named("sync_engine", "psycopg2", "psycopg2-binary")) == (
        "sync_engine cannot be made.\n"
        "Cause: the driver psycopg2 is not installed.\n"
        "Tried: import psycopg2\n"
        "To fix this, either:\n"
        "  - install it:  pip install psycopg2-binary\n"
        "  - use the other kind of session: get_sync_session needs psycopg2 alone, get_session asyncpg alone"
    )


def test_transaction_aborted() -> None:
    """The text names the statement's failure and the three ways to deal with one."""
    assert str(TransactionAborted.after("division by zero (SQLSTATE 22012)")) == (
        "The transaction cannot be committed: PostgreSQL would silently roll it back.\n"
        "Cause: an earlier statement failed, and its error was caught without undoing it: "
        "division by zero (SQLSTATE 22012)\n"
        "Tried: SELECT 1 before COMMIT; the server refuses everything until the transaction is rolled back.\n"
        "To fix this, either:\n"
        "  - run a statement that may fail in a savepoint:  async with session.begin_nested(): ...\n"
        "  - undo the transaction where the error is caught:  await session.rollback()\n"
        "  - let the error travel: the session rolls back by itself"
    )


@pytest.mark.parametrize("kind", [DatabaseUnavailable, DriverMissing, TransactionAborted])
def test_one_tree(kind: type[DatabaseError]) -> None:
    """Each error is a DatabaseError, and survives the way from a worker process."""
    again = pickle.loads(pickle.dumps(kind("text")))

    assert isinstance(again, DatabaseError)
    assert str(again) == "text"

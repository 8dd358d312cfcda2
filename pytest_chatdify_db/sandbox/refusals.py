"""The errors of the sandbox itself, in PostgreSQL's own fields, so that each driver raises its own exception class."""

from __future__ import annotations

from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.lexer import exactly

OWN_DATABASE: Final = (
    'Mark the test with @pytest.mark.chatdify_db(isolation="database") to give it a database of its own,'
    " where every connection has its own session."
)

IN_FAILED: Final = wire.error(
    "25P02", "current transaction is aborted, commands ignored until end of transaction block"
)


SYNC_LOST: Final = wire.error(
    "08P01", "terminating connection because protocol synchronization was lost", severity="FATAL"
)


def conflict(owner: str, other: str, place: str) -> bytes:
    """Refuse to read on after a rollback that could not be done, in the test or fixture *place*, if it is in any."""
    where = f"in {place}, " if place else ""
    return wire.error(
        "40001",
        "this test's connections have got into each other's way: a rollback could not be done",
        detail=f"{where}{owner} rolled back what it had written, but {other} had written since. All connections of a"
        " test share one transaction, in which the one cannot be undone without the other. What this statement would"
        " read is not what PostgreSQL would show.",
        hint="Let the one end its transaction before the other writes. " + OWN_DATABASE,
    )


def cursor_undone(owner: str, by: str) -> bytes:
    """Refuse to read a cursor that another connection's rollback has closed."""
    return wire.error(
        "40001",
        "this test's connections have got into each other's way: another one's rollback has closed this cursor",
        detail=f"{owner} opened the cursor after {by} had begun to write, and {by} has rolled back since. All"
        " connections of a test share one transaction, in which a rollback closes what was opened since the writes"
        " that it undoes.",
        hint="Read the cursor to its end before the other one rolls back. " + OWN_DATABASE,
    )


def foreign_table(name: str, owner: str, *, makes: bool) -> bytes:
    """Refuse a temporary table that another connection has made: to use it, or to make another one of its name."""
    return wire.error(
        "42P07" if makes else "42P01",
        f'temporary table "{name}" belongs to another connection',
        detail=f"{owner} has made it, and PostgreSQL would not show it here. All connections of a test share one"
        " session of the server, in which a name stands for one temporary table.",
        hint="Use another name, or drop the table first. " + OWN_DATABASE,
    )


def dirty_read(writer: str, table: str, wrote: str) -> bytes:
    """Refuse to read what another connection has not committed."""
    return wire.error(
        "55000",
        f'dirty read of table "{table}": another connection has written to it and not committed',
        detail=f"{writer} ran: {' '.join(wrote.split())[:300]}. PostgreSQL would not show its rows here; the sandbox"
        " would.",
        hint="Commit before you send the task or request that reads. --chatdify-db-dirty-reads=warn or off lets it"
        " pass.",
    )


CANCELLED: Final = wire.error("57014", "canceling statement due to user request")


def deadlock(explanation: str) -> bytes:
    """End a statement that waits for what can never happen, as a deadlock is ended."""
    return wire.error(
        "40P01",
        "deadlock detected: this statement waits for a lock that cannot be released",
        detail=explanation,
        hint="End the transaction that holds the lock before this statement runs, or run one of the two in a thread.",
    )


def lost(frame: str) -> bytes:
    """Refuse to go on with a transaction that ended with the test it was begun in."""
    return wire.error(
        "25P02",
        "this transaction was undone when the test it was begun in ended",
        detail=f"It was begun in {frame} and neither committed nor rolled back there.",
        hint="Close the session or end its transaction in the test or fixture that began it. ROLLBACK makes this"
        " connection usable again.",
    )


def isolation(level: str) -> bytes:
    """Refuse an isolation level that one shared transaction cannot have."""
    return wire.error(
        "0A000",
        f"transaction isolation level {level.upper()} is not available in this test",
        detail="All connections of a test share one transaction, whose level is READ COMMITTED.",
        hint=OWN_DATABASE,
    )


def mode_by_function(parameter: str) -> bytes:
    """Refuse to have a function set the modes of the one transaction that all share."""
    return wire.error(
        "0A000",
        f'parameter "{parameter}" cannot be set by a function in this test',
        detail="All connections of a test share one transaction, whose modes it would set for all of them.",
        hint="Say SET TRANSACTION. " + OWN_DATABASE,
    )


def unstable(other: str) -> bytes:
    """Refuse to read on in a transaction that must not see what has been written since it began."""
    return wire.error(
        "40001",
        "this transaction's snapshot cannot be kept: another connection has written since it began",
        detail=f"{other} has written. All connections of a test share one transaction, whose level is READ COMMITTED.",
        hint=OWN_DATABASE,
    )


def held(cursor: str) -> bytes:
    """Refuse, as the server does, to write where a cursor stands that has outlived its transaction."""
    return wire.error("24000", f'cursor "{exactly(cursor)}" is held from a previous transaction')


def has_run(portal: bytes) -> bytes:
    """Refuse, as the server does, to execute or read a portal that has nothing more to do."""
    return wire.error("55000", f'portal "{portal.decode("utf-8", "replace")}" cannot be run')


NO_SNAPSHOT: Final = wire.error(
    "0A000",
    "a snapshot of another transaction is not available in this test",
    detail="All connections of a test share one transaction, which has a snapshot of its own.",
    hint=OWN_DATABASE,
)

PREPARE_TRANSACTION: Final = wire.error(
    "0A000",
    "PREPARE TRANSACTION is not available in this test",
    detail="All connections of a test share one transaction, which it would end.",
    hint=OWN_DATABASE,
)


def needs_transaction(command: str) -> bytes:
    """Refuse, as the server does, what makes sense only inside BEGIN."""
    return wire.error("25P01", f"{command} can only be used in transaction blocks")


def no_savepoint(name: str) -> bytes:
    """Refuse, as the server does, a savepoint that does not exist."""
    return wire.error("3B001", f'savepoint "{exactly(name)}" does not exist')


ESCAPED: Final = "the transaction that isolates this test has ended"


def server_gone(reason: str) -> bytes:
    """End a connection because the server behind the sandbox has gone."""
    return wire.error(
        "57P01", "terminating connection because the test server has gone away", detail=reason, severity="FATAL"
    )


def database_gone(frame: str) -> bytes:
    """End a connection whose statement still ran when the test whose database it was in ended."""
    return wire.error(
        "57P01",
        "terminating connection because the test that it worked for has ended",
        detail=f"{frame} had a database of its own, in which this statement was still running.",
        hint="Wait for it in the test, or in a fixture's teardown.",
        severity="FATAL",
    )

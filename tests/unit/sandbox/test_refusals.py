"""What the sandbox says where it refuses: SQLSTATE, message, detail and hint, word for word."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import refusals

OWN = (
    'Mark the test with @pytest.mark.chatdify_db(isolation="database") to give it a database of its own,'
    " where every connection has its own session."
)


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (
            refusals.conflict("connection 1", "connection 2", place),
            {
                "C": "40001",
                "M": "this test's connections have got into each other's way: a rollback could not be done",
                "D": f"{begin}connection 1 rolled back what it had written, but connection 2 had written since. All"
                " connections of a test share one transaction, in which the one cannot be undone without the other."
                " What this statement would read is not what PostgreSQL would show.",
                "H": f"Let the one end its transaction before the other writes. {OWN}",
            },
        )
        for place, begin in (("", ""), ("tests/test_a.py::test_b", "in tests/test_a.py::test_b, "))
    ]
    + [
        (
            refusals.database_gone("tests/test_a.py::test_b"),
            {
                "S": "FATAL",
                "V": "FATAL",
                "C": "57P01",
                "M": "terminating connection because the test that it worked for has ended",
                "D": "tests/test_a.py::test_b had a database of its own, in which this statement was still running.",
                "H": "Wait for it in the test, or in a fixture's teardown.",
            },
        ),
        (
            refusals.mode_by_function("transaction_read_only"),
            {
                "C": "0A000",
                "M": 'parameter "transaction_read_only" cannot be set by a function in this test',
                "D": "All connections of a test share one transaction, whose modes it would set for all of them.",
                "H": f"Say SET TRANSACTION. {OWN}",
            },
        ),
        (
            refusals.lost("tests/test_a.py::test_b"),
            {
                "C": "25P02",
                "M": "this transaction was undone when the test it was begun in ended",
                "D": "It was begun in tests/test_a.py::test_b and neither committed nor rolled back there.",
                "H": "Close the session or end its transaction in the test or fixture that began it. ROLLBACK makes"
                " this connection usable again.",
            },
        ),
        (
            refusals.isolation("serializable"),
            {
                "C": "0A000",
                "M": "transaction isolation level SERIALIZABLE is not available in this test",
                "D": "All connections of a test share one transaction, whose level is READ COMMITTED.",
                "H": OWN,
            },
        ),
        (
            refusals.PREPARE_TRANSACTION,
            {
                "C": "0A000",
                "M": "PREPARE TRANSACTION is not available in this test",
                "D": "All connections of a test share one transaction, which it would end.",
                "H": OWN,
            },
        ),
        (
            refusals.dirty_read("connection 1", "items", "INSERT\n  INTO items"),
            {
                "C": "55000",
                "M": 'dirty read of table "items": another connection has written to it and not committed',
                "D": "connection 1 ran: INSERT INTO items. PostgreSQL would not show its rows here; the sandbox would.",
                "H": "Commit before you send the task or request that reads. --chatdify-db-dirty-reads=warn or off lets"
                " it pass.",
            },
        ),
        (
            refusals.cursor_undone("connection 1", "connection 2"),
            {
                "C": "40001",
                "M": "this test's connections have got into each other's way: another one's rollback has closed this"
                " cursor",
                "D": "connection 1 opened the cursor after connection 2 had begun to write, and connection 2 has rolled"
                " back since. All connections of a test share one transaction, in which a rollback closes what was"
                " opened since the writes that it undoes.",
                "H": f"Read the cursor to its end before the other one rolls back. {OWN}",
            },
        ),
        (
            refusals.foreign_table("names", "connection 1", makes=False),
            {
                "C": "42P01",
                "M": 'temporary table "names" belongs to another connection',
                "D": "connection 1 has made it, and PostgreSQL would not show it here. All connections of a test share"
                " one session of the server, in which a name stands for one temporary table.",
                "H": f"Use another name, or drop the table first. {OWN}",
            },
        ),
        (
            refusals.needs_transaction("SAVEPOINT"),
            {"C": "25P01", "M": "SAVEPOINT can only be used in transaction blocks"},
        ),
        (refusals.no_savepoint("a"), {"C": "3B001", "M": 'savepoint "a" does not exist'}),
        (
            refusals.IN_FAILED,
            {"C": "25P02", "M": "current transaction is aborted, commands ignored until end of transaction block"},
        ),
    ],
    ids=lambda value: value.get("C", "") if isinstance(value, dict) else "",
)
def test_errors_have_the_fields_of_the_server(error: bytes, fields: dict[str, str]) -> None:
    """So that each driver raises its own exception class and shows the way out."""
    assert wire.error_fields(error[5:]) == {"S": "ERROR", "V": "ERROR"} | fields


def test_the_end_of_the_server_ends_the_connection() -> None:
    """The reason is the detail."""
    assert wire.error_fields(refusals.server_gone("it was killed")[5:]) == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "57P01",
        "M": "terminating connection because the test server has gone away",
        "D": "it was killed",
    }

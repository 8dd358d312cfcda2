"""What connections have executed lately."""

from __future__ import annotations

from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.journal import Journal
from pytest_chatdify_db.sandbox.reports import Executed


def test_journal() -> None:
    """One journal for all connections, in order; a failure is that of the connection's last statement."""
    journal = Journal()
    one, two = Client(1, b"", journal), Client(2, b"", journal)
    one.runs(b"SELECT 1")
    two.runs("SELECT '\N{SNOWMAN}'")
    one.runs(b"SELECT \xff")
    journal.failed(two)

    assert journal.read() == [
        Executed(1, "", "SELECT 1", False),
        Executed(2, "", "SELECT '\N{SNOWMAN}'", True),
        Executed(1, "", "SELECT \N{REPLACEMENT CHARACTER}", False),
    ]
    assert one.last_sql == b"SELECT \xff"


def test_bounds() -> None:
    """It keeps the last two hundred, and none after a new beginning; a failure of who has executed nothing is none."""
    journal = Journal()
    client = Client(1, b"", journal)
    for number in range(300):
        client.runs(str(number))
    journal.failed(Client(2, b"", journal))

    assert [each.sql for each in journal.read()] == [str(number) for number in range(100, 300)]
    assert not any(each.has_failed for each in journal.read())

    journal.clear()
    journal.failed(client)

    assert journal.read() == []

"""What is said about the sandbox's findings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_chatdify_db.sandbox.reports import Leftover
from pytest_chatdify_db.settings import Options, Severity, resolve
from pytest_chatdify_db.tracing.checkouts import Checkout
from pytest_chatdify_db.tracing.findings import (
    DirtyReadWarning,
    LeakWarning,
    NPlusOneWarning,
    Report,
    StrayWriteWarning,
    findings,
    loops,
    stray_writes,
    unreturned,
)
from pytest_chatdify_db.tracing.statements import Line, Statement


@dataclass(frozen=True)
class Dirty:
    """A dirty read."""

    reader: int = 2
    writer: int = 1
    read: str = "SELECT *\n  FROM orders"
    wrote: str = "INSERT INTO orders " + "x" * 300
    table: str = "orders"


@dataclass(frozen=True)
class Found:
    """A report of the sandbox."""

    clients_in_transaction: tuple[str, ...] = ()
    dirty_reads: tuple[Dirty, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


def told(report: Report, **given: str) -> list[tuple[str, str]]:
    """Return severity and text of what is said with these options."""
    options = resolve({f"chatdify_db_{name}": value for name, value in given.items()}, {}, {})
    return [(finding.severity, finding.text) for finding in findings("test_it.py::test_it", report, options)]


def test_nothing_found() -> None:
    """A test like most is not spoken of."""
    assert told(Found()) == []


def test_dirty_read() -> None:
    """By default a dirty read is a warning with both statements and the ways out."""
    ((severity, text),) = told(Found(dirty_reads=(Dirty(),)))

    assert severity == "warn"
    assert "in test_it.py::test_it one connection of the application has read rows of 'orders'" in text
    assert "Read: SELECT * FROM orders\n" in text
    assert "Written, not committed: INSERT INTO orders xxx" in text
    assert max(map(len, text.splitlines())) < 250
    assert "delay_on_commit(session, task, ...)" in text


@pytest.mark.parametrize("choice", ["off", "error"])
def test_dirty_read_not_reported(choice: str) -> None:
    """Switched off it is not told; as an error it has failed before, where it happened."""
    assert told(Found(dirty_reads=(Dirty(),)), dirty_reads=choice) == []


@pytest.mark.parametrize("choice", ["warn", "error"])
def test_leak(choice: str) -> None:
    """A transaction left open is a warning or an error, and names the connection."""
    ((severity, text),) = told(Found(("connection 3 (web)",)), leaks=choice)

    assert severity == choice
    assert "test_it.py::test_it has left 1 connection(s) in a transaction.\n  - connection 3 (web)\n" in text
    assert told(Found(("connection 3 (web)",)), leaks="off") == []


def test_leftovers() -> None:
    """What stays with a connection is named with the connection and the statement, and how to end it."""
    left = Leftover(3, "connection 3 (web)", "advisory lock", "SELECT pg_advisory_lock(1)")

    ((severity, text),) = told(Found(leftovers=(left,)), leaks="error")

    assert severity == "error"
    assert text.splitlines() == [
        "chatdify-db: test_it.py::test_it has left something with connections that go back to their pool; in "
        "production the next one to use such a connection has it too.",
        "  - advisory lock: connection 3 (web)",
        "    SELECT pg_advisory_lock(1)",
        "To fix this, either:",
        "  - end it where it was begun: UNLISTEN, pg_advisory_unlock(), DROP TABLE",
        "  - bind it to the transaction: pg_advisory_xact_lock(), CREATE TEMPORARY TABLE ... ON COMMIT DROP",
        "  - switch the check off: --chatdify-db-leaks=off",
    ]
    assert told(Found(leftovers=(left,)), leaks="off") == []


@dataclass(frozen=True)
class Saw:
    """A transcript that knows two connections."""

    reader: Statement
    writer: Statement

    def last(self, client: int, sql: str) -> Statement | None:
        """Return the statement of a connection."""
        return self.reader if client == 2 else self.writer

    def first_in_transaction(self, client: int) -> Statement | None:
        """Return the statement of a connection."""
        return self.last(client, "")


def statement(actor: str, **more: object) -> Statement:
    """Return a statement of the project."""
    return Statement("SELECT 1", "asyncpg", False, actor, 1, Line("web.py", 7, "orders"), **more)  # type: ignore[arg-type]  # a stand-in


def test_dirty_read_names_both_sides() -> None:
    """Who read and who wrote are named, with their lines."""
    saw = Saw(statement("task ship[1a2b]"), statement("request POST /orders"))

    (found,) = findings("t", Found(dirty_reads=(Dirty(),)), Options(), saw)

    assert found.category is DirtyReadWarning
    assert "\nRead by task ship[1a2b] at web.py:7 in orders: SELECT * FROM orders\n" in found.text
    assert "\nWritten, not committed by request POST /orders at web.py:7 in orders: INSERT" in found.text


@pytest.mark.parametrize("own", ["session", "sync_session"])
def test_dirty_read_of_the_test_itself(own: str) -> None:
    """The fixtures' sessions may see, and show, what is not committed."""
    for saw in (Saw(statement(own), statement("test")), Saw(statement("test"), statement(own))):
        assert list(findings("t", Found(dirty_reads=(Dirty(),)), Options(), saw)) == []


def test_leak_names_who_began() -> None:
    """The first statement of the transaction is told with its line."""
    saw = Saw(statement("test"), statement("thread worker"))

    (found,) = findings("t", Found(("connection 3 (web), last statement: SELECT 2",)), Options(), saw)

    assert found.category is LeakWarning
    assert "SELECT 2\n    begun by thread worker at web.py:7 in orders: SELECT 1\n" in found.text


TAKEN = Checkout(3, "request POST /orders", Line("web.py", 7, "orders"))


@pytest.mark.parametrize("choice", ["warn", "error"])
def test_unreturned(choice: Severity) -> None:
    """A connection out of its pool is told with who took it, at which line, and how to give it back."""
    (found,) = unreturned("t", [TAKEN, Checkout(4, "thread w", None)], [], choice)

    assert (found.severity, found.category) == (choice, LeakWarning)
    assert found.text.splitlines() == [
        "chatdify-db: t has left 2 connection(s) out of the pool; in production others wait for one until the pool's "
        "timeout.",
        "  - connection 3, taken by request POST /orders at web.py:7 in orders",
        "  - connection 4, taken by thread w",
        "To fix this, either:",
        "  - close it where it was taken: with engine.connect() as connection, or async with",
        "  - take it in a fixture of the scope in which it is needed",
        "  - switch the check off: --chatdify-db-leaks=off",
    ]


def test_unreturned_is_told_once() -> None:
    """A connection in a transaction is told of as such; nothing is said with the check off, or where none is out."""
    assert list(unreturned("t", [TAKEN], ["connection 3 (web), last statement: SELECT 2"], "warn")) == []
    assert list(unreturned("t", [TAKEN], [], "off")) == []
    assert list(unreturned("t", [], [], "error")) == []


def test_loop() -> None:
    """Three lazy loads from one line are a loop; two are not, nor are three from two lines."""
    load = statement("request GET /", relationship="Item.shop")
    other = Statement("SELECT 1", "asyncpg", actor="request GET /", relationship="Item.shop")

    assert list(loops("t", [load, load, other, statement("test")], "warn")) == []
    (found,) = loops("t", [load, load, load], "error")
    assert (found.severity, found.category) == ("error", NPlusOneWarning)
    assert "in t the relationship Item.shop was loaded lazily 3 times from one line" in found.text
    assert "request GET / at web.py:7 in orders: SELECT 1" in found.text
    assert "select(...).options(selectinload(Item.shop))" in found.text
    assert "shop = relationship(..., lazy='selectin')" in found.text


def test_stray_writes() -> None:
    """What was written between tests is told with the test before it, the actor and the line."""
    found = stray_writes("test_it.py::test_it", [statement("thread worker")] * 5)

    assert found.category is StrayWriteWarning
    assert "after test_it.py::test_it had ended, something was written while no test was running" in found.text
    assert found.text.count("  - thread worker at web.py:7 in orders: SELECT 1") == 3
    assert "  - and 2 more" in found.text
    assert "before the first test began" in stray_writes(None, [statement("test")]).text

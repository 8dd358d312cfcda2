"""What is said about the sandbox's findings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_chatdify_db.findings import Report, findings
from pytest_chatdify_db.settings import resolve


@dataclass(frozen=True)
class Dirty:
    """A dirty read."""

    read: str = "SELECT *\n  FROM orders"
    wrote: str = "INSERT INTO orders " + "x" * 300
    table: str = "orders"


@dataclass(frozen=True)
class Found:
    """A report of the sandbox."""

    clients_in_transaction: tuple[str, ...] = ()
    dirty_reads: tuple[Dirty, ...] = ()


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

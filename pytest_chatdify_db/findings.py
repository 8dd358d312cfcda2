"""What the sandbox noticed in a test, in words, and what is done about it: nothing, a warning, or a failure.

Pure: the sandbox's report goes in, texts come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pytest_chatdify_db.settings import Options, Severity

_LONGEST = 200


class ChatdifyDBWarning(UserWarning):
    """Something in a test that production would not show, or that its next test should not find."""


class DirtyRead(Protocol):
    """One connection has read what another had not committed."""

    @property
    def read(self) -> str:
        """The statement that read."""

    @property
    def wrote(self) -> str:
        """The statement that had written."""

    @property
    def table(self) -> str:
        """The table."""


class Report(Protocol):
    """What the sandbox reports at the end of a test."""

    @property
    def clients_in_transaction(self) -> tuple[str, ...]:
        """The connections that were left in a transaction."""

    @property
    def dirty_reads(self) -> tuple[DirtyRead, ...]:
        """What was read before it was committed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was noticed.

    Args:
        severity: ``warn`` or ``error``.
        text: What it is, and what to do.
    """

    severity: Severity
    text: str


def findings(test: str, report: Report, options: Options) -> Iterator[Finding]:
    """Yield what *options* want to be told about the *report* of *test*."""
    # A dirty read that is an error has failed already, where it happened.
    if options.dirty_reads == "warn":
        for dirty in report.dirty_reads:
            yield Finding("warn", _dirty_read(test, dirty))
    if options.leaks != "off" and report.clients_in_transaction:
        yield Finding(options.leaks, _leak(test, report.clients_in_transaction))


def _dirty_read(test: str, dirty: DirtyRead) -> str:
    return "\n".join(
        [
            f"chatdify-db: in {test} one connection of the application has read rows of {dirty.table!r} that another "
            "had not committed; in production it would not see them.",
            f"Read: {_line(dirty.read)}",
            f"Written, not committed: {_line(dirty.wrote)}",
            "To fix this, either:",
            "  - start what reads after the commit: delay_on_commit(session, task, ...)",
            "  - switch the check off: --chatdify-db-dirty-reads=off",
        ]
    )


def _leak(test: str, clients: tuple[str, ...]) -> str:
    return "\n".join(
        [
            f"chatdify-db: {test} has left {len(clients)} connection(s) in a transaction.",
            *(f"  - {client}" for client in clients),
            "To fix this, either:",
            "  - close each session: with get_sync_session() as session, or Depends(get_session)",
            "  - switch the check off: --chatdify-db-leaks=off",
        ]
    )


def _line(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 4] + " ..."

"""What was noticed in a test, in words, and what is done about it: nothing, a warning, or a failure.

Pure: the sandbox's report and the transcript go in, texts come out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from pytest_chatdify_db.settings import Options, Severity
from pytest_chatdify_db.tracing.checkouts import Checkout
from pytest_chatdify_db.tracing.statements import OWN_SESSIONS, Statement, one_line

_LONGEST: Final = 200
_MOST_STRAY: Final = 3
_CONNECTION: Final = re.compile(r"connection (\d+)")
#: So many lazy loads from one line are a loop: two may be two calls with one object each.
_LOOP: Final = 3


class ChatdifyDBWarning(UserWarning):
    """Something in a test that production would not show, or that its next test should not find."""


class DirtyReadWarning(ChatdifyDBWarning):
    """One connection of the application has read what another had not committed."""


class LeakWarning(ChatdifyDBWarning):
    """A test has left a connection in a transaction or out of its pool, or something with it that nothing ends."""


class NPlusOneWarning(ChatdifyDBWarning):
    """A loop has loaded a relationship lazily, one statement for each object."""


class StrayWriteWarning(ChatdifyDBWarning):
    """Something was written while no test was running."""


class DirtyRead(Protocol):
    """One connection has read what another had not committed."""

    @property
    def reader(self) -> int:
        """The number of the connection that read."""

    @property
    def writer(self) -> int:
        """The number of the one that had written."""

    @property
    def read(self) -> str:
        """The statement that read."""

    @property
    def wrote(self) -> str:
        """The statement that had written."""

    @property
    def table(self) -> str:
        """The table."""


class Leftover(Protocol):
    """Something that a connection keeps and that no transaction ends."""

    @property
    def client(self) -> int:
        """The number of the connection."""

    @property
    def label(self) -> str:
        """How messages call it."""

    @property
    def what(self) -> str:
        """What it keeps: ``LISTEN orders``, ``advisory lock``, ``temporary table names``."""

    @property
    def sql(self) -> str:
        """The statement that made it."""


class Report(Protocol):
    """What the sandbox reports at the end of a test."""

    @property
    def clients_in_transaction(self) -> tuple[str, ...]:
        """The connections that were left in a transaction."""

    @property
    def dirty_reads(self) -> tuple[DirtyRead, ...]:
        """What was read before it was committed."""

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """What connections keep that no transaction ends."""


class Witness(Protocol):
    """Who knows on whose behalf a connection executed what: the transcript."""

    def last(self, client: int, sql: str) -> Statement | None:
        """Return the last statement of that text by the connection *client*."""

    def first_in_transaction(self, client: int) -> Statement | None:
        """Return the first statement of the transaction that the connection *client* is in."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was noticed.

    Args:
        severity: ``warn`` or ``error``.
        text: What it is, and what to do.
        category: The warning it is.
    """

    severity: Severity
    text: str
    category: type[ChatdifyDBWarning]


def findings(test: str, report: Report, options: Options, witness: Witness | None = None) -> Iterator[Finding]:
    """Yield what *options* want to be told about the *report* of *test*.

    Args:
        test: The test's id.
        report: What the sandbox saw.
        options: What is to be told.
        witness: Knows the lines of the project; None if nobody does.
    """
    # A dirty read that is an error has failed already, where it happened.
    if options.dirty_reads == "warn":
        for dirty in report.dirty_reads:
            read = None if witness is None else witness.last(dirty.reader, dirty.read)
            wrote = None if witness is None else witness.last(dirty.writer, dirty.wrote)
            if not (_is_own(read) or _is_own(wrote)):
                yield Finding("warn", _dirty_read(test, dirty, read, wrote), DirtyReadWarning)
    if options.leaks != "off" and report.clients_in_transaction:
        yield Finding(options.leaks, _leak(test, report.clients_in_transaction, witness), LeakWarning)
    if options.leaks != "off" and report.leftovers:
        yield Finding(options.leaks, _remains(test, report.leftovers, witness), LeakWarning)


def unreturned(
    test: str, checkouts: Iterable[Checkout], in_transaction: Iterable[str], severity: Severity
) -> Iterator[Finding]:
    """Yield a finding if *test* has left connections out of their pools that are in no transaction.

    Args:
        test: The test's id.
        checkouts: What it has taken and not given back.
        in_transaction: The connections that were left in a transaction, and are told of as such.
        severity: What is to be done.
    """
    told = {int(number[1]) for client in in_transaction if (number := _CONNECTION.match(client))}
    left = [each for each in checkouts if each.client not in told]
    if left and severity != "off":
        yield Finding(severity, _unreturned(test, left), LeakWarning)


def loops(test: str, statements: Iterable[Statement], severity: Severity) -> Iterator[Finding]:
    """Yield a finding for each line of *test* that has loaded a relationship lazily again and again."""
    found: dict[tuple[str, str, object], list[Statement]] = {}
    for statement in statements:
        if statement.relationship:
            found.setdefault((statement.relationship, statement.actor, statement.line), []).append(statement)
    for (relationship, _, _), repeated in found.items():
        if len(repeated) >= _LOOP and severity != "off":
            yield Finding(severity, _loop(test, relationship, repeated), NPlusOneWarning)


def stray_writes(test: str | None, statements: list[Statement]) -> Finding:
    """Return the finding for *statements*, executed after *test* had ended; None if it was before the first one."""
    when = "before the first test began" if test is None else f"after {test} had ended"
    shown = [f"  - {_by(each)}: {_line(each.sql)}" for each in statements[:_MOST_STRAY]]
    if len(statements) > _MOST_STRAY:
        shown.append(f"  - and {len(statements) - _MOST_STRAY} more")
    text = "\n".join(
        [
            f"chatdify-db: {when}, something was written while no test was running; what comes later may see it.",
            *shown,
            "To fix this, either:",
            "  - wait for threads and background work before the test ends: thread.join(), await task",
            "  - write in a fixture, of whatever scope, instead of a hook: its rows are undone with it",
        ]
    )
    return Finding("warn", text, StrayWriteWarning)


def _dirty_read(test: str, dirty: DirtyRead, read: Statement | None, wrote: Statement | None) -> str:
    return "\n".join(
        [
            f"chatdify-db: in {test} one connection of the application has read rows of {dirty.table!r} that another "
            "had not committed; in production it would not see them.",
            f"Read{_by_whom(read)}: {_line(dirty.read)}",
            f"Written, not committed{_by_whom(wrote)}: {_line(dirty.wrote)}",
            "To fix this, either:",
            "  - start what reads after the commit: delay_on_commit(session, task, ...)",
            "  - switch the check off: --chatdify-db-dirty-reads=off",
        ]
    )


def _leak(test: str, clients: tuple[str, ...], witness: Witness | None) -> str:
    return "\n".join(
        [
            f"chatdify-db: {test} has left {len(clients)} connection(s) in a transaction.",
            *(f"  - {client}{_begun(client, witness)}" for client in clients),
            "To fix this, either:",
            "  - close each session and connection where it was opened: in a with block, or by Depends(get_session)",
            "  - switch the check off: --chatdify-db-leaks=off",
        ]
    )


def _remains(test: str, leftovers: tuple[Leftover, ...], witness: Witness | None) -> str:
    lines = []
    for each in leftovers:
        statement = None if witness is None else witness.last(each.client, each.sql)
        by = "" if statement is None else f", by {_by(statement)}"
        lines += [f"  - {each.what}: {each.label}{by}", f"    {_line(each.sql)}"]
    return "\n".join(
        [
            f"chatdify-db: {test} has left something with connections that go back to their pool; in production the "
            "next one to use such a connection has it too.",
            *lines,
            "To fix this, either:",
            "  - end it where it was begun: UNLISTEN, pg_advisory_unlock(), DROP TABLE",
            "  - bind it to the transaction: pg_advisory_xact_lock(), CREATE TEMPORARY TABLE ... ON COMMIT DROP",
            "  - switch the check off: --chatdify-db-leaks=off",
        ]
    )


def _unreturned(test: str, left: list[Checkout]) -> str:
    return "\n".join(
        [
            f"chatdify-db: {test} has left {len(left)} connection(s) out of the pool; in production others wait for "
            "one until the pool's timeout.",
            *(f"  - connection {each.client}, taken by {_by(each)}" for each in left),
            "To fix this, either:",
            "  - close it where it was taken: with engine.connect() as connection, or async with",
            "  - take it in a fixture of the scope in which it is needed",
            "  - switch the check off: --chatdify-db-leaks=off",
        ]
    )


def _begun(client: str, witness: Witness | None) -> str:
    number = _CONNECTION.match(client)
    first = None if number is None or witness is None else witness.first_in_transaction(int(number[1]))
    return "" if first is None else f"\n    begun by {_by(first)}: {_line(first.sql)}"


def _loop(test: str, relationship: str, repeated: list[Statement]) -> str:
    example = repeated[0]
    attribute = relationship.rpartition(".")[2]
    return "\n".join(
        [
            f"chatdify-db: in {test} the relationship {relationship} was loaded lazily {len(repeated)} times from one "
            "line: one statement for each object (N+1).",
            f"{_by(example)}: {_line(example.sql)}",
            "To fix this, either:",
            f"  - load it with the query: select(...).options(selectinload({relationship}))",
            f"  - load it always: {attribute} = relationship(..., lazy='selectin')",
            "  - switch the check off: @pytest.mark.chatdify_db(n_plus_one='off')",
        ]
    )


def _is_own(statement: Statement | None) -> bool:
    """Whether it is of a session of the test's own, which may see what the application would not."""
    return statement is not None and statement.actor in OWN_SESSIONS


def _by_whom(statement: Statement | None) -> str:
    return "" if statement is None else f" by {_by(statement)}"


def _by(caused: Statement | Checkout) -> str:
    return caused.actor + (f" at {caused.line}" if caused.line else "")


def _line(sql: str) -> str:
    return one_line(sql, _LONGEST)

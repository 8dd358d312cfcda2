"""The SQL section of a test's report: what was executed, oldest first, and what became of it, on at most one screen.

Pure: statements go in, lines come out. What only steers a transaction takes no line: each write says itself whether it
was committed. Of many statements, those that failed, those that wrote and the last ones are shown.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from pytest_chatdify_db.tracing.statements import OWN_SESSIONS, Line, Statement, is_control, one_line, shown_parameters

TITLE: Final = "chatdify-db: SQL"
#: The property's name in JUnit XML.
PROPERTY: Final = "chatdify_db_sql"
_MOST: Final = 12
#: So many of the last statements are shown even where others wrote: they are what the test has looked at.
_LAST: Final = 4
_WIDEST: Final = 160
_MOST_HINTS: Final = 2
_MOST_OTHERS: Final = 6
_LITERAL: Final = re.compile(r"'(?:[^']|'')*(?:'|$)")
_SAVEPOINT: Final = re.compile(
    r"\s*(SAVEPOINT|ROLLBACK\s+(?:WORK\s+)?TO(?:\s+SAVEPOINT)?)\s+(\S+?)\s*;?\s*$", re.IGNORECASE
)
#: asyncpg's name for it has one word more.
_NO_TABLE: Final = re.compile(r'UndefinedTable\w*: relation ("[^"]+")')
_NO_TABLE_HINT: Final = """\
hint: nothing has created the table {table}. Import the module of its model before the first test, in conftest.py or,
      with app.db, by DB_MODELS; if it is on another Base, name that: --chatdify-db-metadata=module:attribute"""
_FORGOTTEN_HINT: Final = """\
hint: {what} was rolled back, and no statement had failed: if it was meant to stay, the commit is missing
      (session.commit(), or get_sync_session(), which commits at its end)"""
#: What asyncio says of a connection in a loop that has not opened it, or that is closed.
_OTHER_LOOP: Final = ("attached to a different loop", "Event loop is closed")
OTHER_LOOP_HINT: Final = """\
hint: a connection of an asyncio driver works in the event loop that opened it, and this engine's pool hands it to any
      loop. Use one loop, or give the engine a poolclass: NullPool, or LoopLocalQueuePool of app.db.pools"""

#: What asyncpg says of a connection that is still at work for another task, or was left so by another event loop.
_BUSY: Final = "another operation is in progress"
_BUSY_HINT: Final = """\
hint: two have used one connection at once: two tasks with the same session, or two event loops with the same pool. Give
      each task a session of its own, and such an engine a poolclass: NullPool, or LoopLocalQueuePool of app.db.pools"""


@dataclass(slots=True)
class _Told:
    """A statement, how often it came in a row, what became of what it wrote, and how many had failed before it."""

    statement: Statement
    times: int = 1
    seconds: float = 0.0
    fate: str = ""
    is_forgotten: bool = False
    failures: int = 0


class Executed(Protocol):
    """A statement of a connection that is of no engine of this process."""

    @property
    def client(self) -> int:
        """The number of the connection."""

    @property
    def application(self) -> str:
        """Its application name, which may be empty."""

    @property
    def sql(self) -> str:
        """The beginning of the statement."""

    @property
    def has_failed(self) -> bool:
        """Whether it has failed."""


def section(
    statements: Iterable[Statement],
    masked: Sequence[str],
    others: Iterable[Executed] = (),
    raising: Container[tuple[str, str]] = (),
) -> str:
    """Return the text of the section; empty if there is nothing to tell.

    Args:
        statements: What was executed, oldest first.
        masked: Parts of the names of parameters whose values are not shown.
        others: What child processes, and drivers without an engine, have executed.
        raising: The functions, by file and name, that the test's error came through: it is why they rolled back.
    """
    told = _folded(_told(statements))
    return "\n".join([*_lines(told, masked), *_others(others), *_hints(told, raising)])


def _told(statements: Iterable[Statement]) -> list[_Told]:
    told: list[_Told] = []
    # Of each connection: what it has written in its transaction, and the names of its savepoints between.
    open_: dict[object, list[_Told | str]] = {}
    failures = 0
    for statement in statements:
        trail = open_.setdefault(statement.client, [])
        if statement.sql == "COMMIT":
            _decide(trail, "committed", failures)
        elif statement.sql == "ROLLBACK":
            _decide(trail, f"rolled back{_at(statement.line)}", failures)
        elif savepoint := _SAVEPOINT.match(statement.sql):
            if savepoint[1].upper() == "SAVEPOINT":
                trail.append(savepoint[2])
            else:
                _decide(trail, f"rolled back to a savepoint{_at(statement.line)}", failures, savepoint[2])
        if statement.is_control and not statement.error:
            continue
        each = _Told(statement, seconds=statement.seconds or 0.0, failures=failures)
        told.append(each)
        failures += bool(statement.error)
        if statement.is_write and not statement.error:
            each.fate = "not committed"
            each.is_forgotten = statement.actor not in OWN_SESSIONS
        if statement.is_write or statement.error:
            trail.append(each)
    return told


def _decide(trail: list[_Told | str], fate: str, failures: int, savepoint: str | None = None) -> None:
    """Say what became of all on the *trail*, or of what came after *savepoint*, and take it off.

    Where a statement of any connection has failed meanwhile, that is why the work was rolled back: a request ends so
    when the task that it sends fails.
    """
    ended: list[_Told] = []
    while trail and trail[-1] != savepoint:
        each = trail.pop()
        if isinstance(each, _Told):
            ended.append(each)
    has_failed = any(each.statement.error for each in ended)
    for each in ended:
        if each.fate:
            each.fate = fate
        each.is_forgotten &= fate.startswith("rolled back") and not has_failed and each.failures == failures


def _at(line: Line | None) -> str:
    return "" if line is None else f" at {line}"


def _folded(told: Iterable[_Told]) -> list[_Told]:
    """Make one of those that come again and again from one line; the parameters of the last one are shown."""
    folded: list[_Told] = []
    for each in told:
        last = folded[-1] if folded else None
        if last is not None and _is_same(last, each):
            last.statement, last.times, last.seconds = each.statement, last.times + 1, last.seconds + each.seconds
        else:
            folded.append(each)
    return folded


def _is_same(one: _Told, other: _Told) -> bool:
    return (one.fate, *_kind(one.statement)) == (other.fate, *_kind(other.statement))


def _kind(statement: Statement) -> tuple[object, ...]:
    return statement.sql, statement.actor, statement.line, statement.error


def _hints(told: Iterable[_Told], raising: Container[tuple[str, str]]) -> Iterator[str]:
    """Yield what is probably wrong, once for each table and for each line."""
    found: dict[str, None] = {}
    for each in told:
        missing = _NO_TABLE.match(each.statement.error)
        if missing is not None:
            found[_NO_TABLE_HINT.format(table=missing[1])] = None
        if any(words in each.statement.error for words in _OTHER_LOOP):
            found[OTHER_LOOP_HINT] = None
        if _BUSY in each.statement.error:
            found[_BUSY_HINT] = None
        line = each.statement.line
        has_raised = line is not None and (line.file, line.function) in raising
        if each.is_forgotten and each.fate != "not committed" and not has_raised:
            what = f"what {each.statement.actor} wrote{_at(each.statement.line)}"
            found[_FORGOTTEN_HINT.format(what=what)] = None
    yield from list(found)[:_MOST_HINTS]


# -- Lines


def _lines(told: Sequence[_Told], masked: Sequence[str]) -> Iterator[str]:
    shown = _shown(told)
    for before, position in pairwise([-1, *shown]):
        left_out = sum(each.times for each in told[before + 1 : position])
        if left_out:
            yield f"... {'1 statement' if left_out == 1 else f'{left_out} statements'} left out"
        yield from _lines_of(told[position], masked)


def _others(executed: Iterable[Executed]) -> Iterator[str]:
    found = [each for each in executed if not is_control(each.sql) or each.has_failed]
    if found:
        yield "by child processes, or drivers without an engine of SQLAlchemy:"
    if len(found) > _MOST_OTHERS:
        yield f"... {len(found) - _MOST_OTHERS} left out"
    for each in found[-_MOST_OTHERS:]:
        name = f"connection {each.client}" + (f" ({each.application})" if each.application else "")
        # A driver may have put values into the text, and which of them is a secret nobody knows.
        sql = one_line(_LITERAL.sub("'...'", each.sql), _WIDEST)
        yield f"{'!' if each.has_failed else ' '} {name}: {sql}" + ("  failed" if each.has_failed else "")


def _shown(told: Sequence[_Told]) -> list[int]:
    """Return the positions of those that are shown."""

    def rank(position: int) -> tuple[bool, bool, bool, int]:
        statement = told[position].statement
        return position >= len(told) - _LAST, bool(statement.error), statement.is_write, position

    return sorted(sorted(range(len(told)), key=rank, reverse=True)[:_MOST])


def _lines_of(told: _Told, masked: Sequence[str]) -> Iterator[str]:
    statement = told.statement
    where = f"  {statement.line}" if statement.line else ""
    yield f"{'!' if statement.error else ' '} {statement.actor} ({statement.driver}){where}  {_facts(told)}"
    parameters = shown_parameters(statement, masked)
    yield f"    {one_line(statement.sql, _WIDEST)}" + (f"  [{parameters}]" if parameters else "")
    if statement.error:
        yield f"    -> {statement.error[:_WIDEST]}"


def _facts(told: _Told) -> str:
    statement = told.statement
    facts = []
    if told.times > 1:
        facts.append(f"{told.times} times")
    if statement.rows is not None and not statement.error:
        facts.append("1 row" if statement.rows == 1 else f"{statement.rows} rows")
    facts.append("not finished" if statement.seconds is None else f"{told.seconds * 1000:.1f} ms")
    if told.fate:
        facts.append(told.fate)
    return ", ".join(facts)

"""The SQL section of a test's report: the last statements, oldest first, on at most one screen.

Pure: statements go in, lines come out. Savepoints and rollbacks of transactions that only read are left out; a
statement that comes again from the same line is told once, with how often it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.statements import Statement, one_line, shown_parameters

TITLE: Final = "chatdify-db: SQL"
#: The property's name in JUnit XML.
PROPERTY: Final = "chatdify_db_sql"
_MOST: Final = 12
_WIDEST: Final = 160
_ENDS: Final = frozenset({"COMMIT", "ROLLBACK"})


@dataclass(slots=True)
class _Told:
    """A statement, and how often it came in a row."""

    statement: Statement
    times: int = 1
    seconds: float = 0.0
    note: str = ""


def section(statements: Iterable[Statement], masked: Sequence[str]) -> str:
    """Return the text of the section; empty if there is nothing to tell.

    Args:
        statements: What was executed, oldest first.
        masked: Parts of the names of parameters whose values are not shown.
    """
    told = _fold(statements)
    if not told:
        return ""
    shown = told[-_MOST:]
    lines = [f"... {_statements(sum(each.times for each in told[:-_MOST]))} before"] if len(told) > _MOST else []
    for each in shown:
        lines += _lines(each, masked)
    return "\n".join(lines)


def _fold(statements: Iterable[Statement]) -> list[_Told]:
    told: list[_Told] = []
    writes: dict[object, int] = {}
    for statement in statements:
        if statement.sql in _ENDS:
            count = writes.pop(statement.client, 0)
            if count:
                note = f"undid {_writes(count)}" if statement.sql == "ROLLBACK" else ""
                told.append(_Told(statement, note=note))
            continue
        if statement.is_control and not statement.error:
            continue
        writes[statement.client] = writes.get(statement.client, 0) + statement.is_write
        last = told[-1] if told else None
        if last is not None and _is_same(last.statement, statement):
            last.times += 1
            last.statement = statement
        else:
            last = _Told(statement)
            told.append(last)
        last.seconds += statement.seconds or 0.0
    return told


def _is_same(one: Statement, other: Statement) -> bool:
    return (one.sql, one.actor, one.line, one.error) == (other.sql, other.actor, other.line, other.error)


def _lines(told: _Told, masked: Sequence[str]) -> list[str]:
    statement = told.statement
    if statement.sql in _ENDS:
        facts = told.note
        text = statement.sql
    else:
        facts = _facts(told)
        parameters = shown_parameters(statement, masked)
        text = one_line(statement.sql, _WIDEST) + (f"  [{parameters}]" if parameters else "")
    where = f"  {statement.line}" if statement.line else ""
    head = f"{statement.actor} ({statement.driver}){where}" + (f"  {facts}" if facts else "")
    mark = "!" if statement.error else " "
    lines = [f"{mark} {head}", f"    {text}"]
    if statement.error:
        lines.append(f"    -> {statement.error[:_WIDEST]}")
    return lines


def _facts(told: _Told) -> str:
    statement = told.statement
    facts = []
    if told.times > 1:
        facts.append(f"{told.times} times")
    if statement.rows is not None and not statement.error:
        facts.append("1 row" if statement.rows == 1 else f"{statement.rows} rows")
    facts.append("not finished" if statement.seconds is None else f"{told.seconds * 1000:.1f} ms")
    return ", ".join(facts)


def _statements(count: int) -> str:
    return "1 statement" if count == 1 else f"{count} statements"


def _writes(count: int) -> str:
    return "1 write" if count == 1 else f"{count} writes"

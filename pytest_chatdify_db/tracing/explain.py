"""The plans of a test's slowest statements, as the server makes them for the rows that the test has stored.

The rule: nothing is changed. A query is executed again, to be measured, in a read-only transaction that is rolled back;
what writes is planned and not executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_chatdify_db.tracing.statements import Statement, first_parameters, is_masked, named_parameters, one_line

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver calls its class in lower case

    from pytest_chatdify_db.postgres.address import Address

_MOST: Final = 3
_MOST_LINES: Final = 8
_WIDEST: Final = 160
#: Milliseconds that one statement may take.
_PATIENCE: Final = 5_000
_QUERY: Final = re.compile(r"\s*(SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
_EXPLAINABLE: Final = re.compile(r"\s*(SELECT|WITH|VALUES|TABLE|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_POSITION: Final = re.compile(r"\$(\d+)")


def section(statements: Iterable[Statement], address: Address, masked: Sequence[str]) -> str:
    """Return the plans of the slowest statements; empty if there are none.

    Args:
        statements: What was executed.
        address: The test's database.
        masked: Parts of the names of parameters whose values are not shown.
    """
    lines: list[str] = []
    for statement in slowest(statements):
        lines.append(f"{one_line(statement.sql, _WIDEST)}  ({(statement.seconds or 0) * 1000:.1f} ms)")
        lines += [f"    {line}" for line in _hidden(_plan(statement, address), statement, masked)]
    return "\n".join(lines)


def slowest(statements: Iterable[Statement]) -> list[Statement]:
    """Return the slowest that can be explained, slowest first; of the same statement, its slowest execution."""
    found: dict[str, Statement] = {}
    for statement in statements:
        if statement.seconds is None or statement.error or not _EXPLAINABLE.match(statement.sql):
            continue
        other = found.get(statement.sql)
        if other is None or (other.seconds or 0.0) < statement.seconds:
            found[statement.sql] = statement
    return sorted(found.values(), key=lambda each: each.seconds or 0.0, reverse=True)[:_MOST]


def sendable(statement: Statement) -> tuple[str, object]:
    """Return text and parameters of *statement* as psycopg2 takes them, whose statement ever it was."""
    given: Any = first_parameters(statement)
    if isinstance(given, Mapping):
        return statement.sql, {name: _adaptable(value) for name, value in given.items()}
    values = [_adaptable(value) for value in given or ()]
    if statement.driver != "asyncpg":
        return statement.sql, values or None
    numbered = {f"p{position}": value for position, value in enumerate(values, 1)}
    if not numbered:
        return statement.sql, None
    return _POSITION.sub(r"%(p\1)s", statement.sql.replace("%", "%%")), numbered


def _adaptable(value: object) -> object:
    """Return *value*, or its text where psycopg2 does not know the type; the statement casts it."""
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import adapt

    try:
        adapt(value)
    except ProgrammingError:
        return str(value)
    return value


def _plan(statement: Statement, address: Address) -> list[str]:
    import psycopg2

    sql, parameters = sendable(statement)
    is_query = _QUERY.match(statement.sql) is not None and not statement.is_write
    options = ["(ANALYZE, BUFFERS OFF) ", ""] if is_query else [""]
    reason = ""
    try:
        # By this name the sandbox knows a connection that is not the application's.
        connection = psycopg2.connect(address.url(), application_name="pytest-chatdify-db explain")
        try:
            connection.set_session(readonly=is_query)
            for each in options:
                try:
                    with connection.cursor() as cursor:
                        return list(_lines(cursor, f"EXPLAIN {each}{sql}", parameters))
                except psycopg2.Error as error:
                    reason = str(error).partition("\n")[0]
                finally:
                    connection.rollback()
        finally:
            connection.close()
    except psycopg2.Error as error:
        reason = str(error).partition("\n")[0]
    return [f"cannot be explained: {reason}"]


def _lines(cursor: Cursor, sql: str, parameters: Any) -> Iterator[str]:
    cursor.execute(f"SET LOCAL statement_timeout = {_PATIENCE}")
    cursor.execute(sql, parameters)
    rows = [str(row[0]) for row in cursor.fetchall()]
    yield from (row[:_WIDEST] for row in rows[:_MOST_LINES])
    if len(rows) > _MOST_LINES:
        yield f"... {len(rows) - _MOST_LINES} more lines"


def _hidden(lines: Iterable[str], statement: Statement, masked: Sequence[str]) -> Iterator[str]:
    """Yield *lines* without the values that no report shows: a plan repeats them."""
    secrets = [str(value) for name, value in named_parameters(statement) if value and is_masked(name, masked)]
    for line in lines:
        for secret in secrets:
            line = line.replace(secret, "***")  # noqa: PLW2901 - one after the other
        yield line

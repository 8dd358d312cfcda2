"""Which statements are explained, and how they are sent again."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.tracing import explain
from pytest_chatdify_db.tracing.explain import section, sendable, slowest
from pytest_chatdify_db.tracing.statements import Statement

ONE = IPv4Address("10.0.0.1")


def test_slowest() -> None:
    """Three at most, the slowest execution of each; neither what failed, nor what never ended, nor what has no plan."""
    statements = [
        Statement("SELECT 1", "asyncpg", seconds=0.1),
        Statement("SELECT 1", "asyncpg", seconds=0.3),
        Statement("SELECT 1", "asyncpg", seconds=0.2),
        Statement("UPDATE a", "asyncpg", seconds=0.4),
        Statement("WITH a AS (SELECT 2) SELECT * FROM a", "asyncpg", seconds=0.2),
        Statement("INSERT INTO a", "asyncpg", seconds=0.1),
        Statement("SELECT 3", "asyncpg", seconds=9, error="DivisionByZero"),
        Statement("SELECT 4", "asyncpg"),
        Statement("CREATE TABLE a ()", "asyncpg", seconds=9),
        Statement("COMMIT", "asyncpg", seconds=9),
    ]

    found = [(each.sql[:8], each.seconds) for each in slowest(statements)]

    assert found == [("UPDATE a", 0.4), ("SELECT 1", 0.3), ("WITH a A", 0.2)]


@pytest.mark.parametrize(
    ("statement", "sent"),
    [
        (Statement("SELECT '%'", "asyncpg", parameters=()), ("SELECT '%'", None)),
        (
            Statement("SELECT $2, $1 LIKE '%'", "asyncpg", parameters=("x", ONE)),
            ("SELECT %(p2)s, %(p1)s LIKE '%%'", {"p1": "x", "p2": str(ONE)}),
        ),
        (Statement("SELECT %(a)s", "psycopg2", parameters={"a": 1}), ("SELECT %(a)s", {"a": 1})),
        (Statement("SELECT %s", "psycopg", parameters=(1,)), ("SELECT %s", [1])),
        (Statement("SELECT 1", "psycopg", parameters=None), ("SELECT 1", None)),
        (
            Statement("UPDATE a SET b = %(b)s", "psycopg2", is_many=True, parameters=[{"b": 1}, {"b": 2}]),
            ("UPDATE a SET b = %(b)s", {"b": 1}),
        ),
    ],
)
def test_sendable(statement: Statement, sent: tuple[str, object]) -> None:
    """Each driver's way to write parameters becomes psycopg2's; of many sets the first is taken."""
    assert sendable(statement) == sent


def test_database_that_is_gone() -> None:
    """The section says why there is no plan."""
    statement = Statement("SELECT 1", "psycopg2", seconds=0.5)

    text = section([statement], Address("/nowhere"), ())

    assert text.startswith("SELECT 1  (500.0 ms)\n    cannot be explained: ")
    assert section([], Address("/nowhere"), ()) == ""


def test_long_plan() -> None:
    """Of a long plan the beginning is shown."""

    class Cursor:
        def execute(self, *_: object) -> None:
            pass

        def fetchall(self) -> list[tuple[str]]:
            return [(f"line {number} " + "x" * 200,) for number in range(20)]

    lines = list(explain._lines(Cursor(), "EXPLAIN SELECT 1", None))  # type: ignore[arg-type]  # a stand-in

    assert len(lines) == 9
    assert all(len(line) <= 160 for line in lines)
    assert lines[-1] == "... 12 more lines"

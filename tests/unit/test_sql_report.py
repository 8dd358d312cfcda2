"""The SQL section of a report."""

from __future__ import annotations

from pytest_chatdify_db.sql_report import section
from pytest_chatdify_db.statements import Line, Statement

WEB = Line("web.py", 7, "orders")


def done(sql: str, actor: str = "session", **more: object) -> Statement:
    """Return a statement that took a millisecond."""
    fields: dict[str, object] = {"client": 1, "line": WEB, "seconds": 0.001, "rows": 1, **more}
    return Statement(sql, "asyncpg", False, actor, **fields)  # type: ignore[arg-type]


def test_nothing() -> None:
    """A test without SQL has no section; neither has one that only steers transactions."""
    assert section([], ()) == ""
    assert section([done("SAVEPOINT a"), done("COMMIT"), done("ROLLBACK")], ()) == ""


def test_statement() -> None:
    """Two lines: who, where, rows and time; what, with its parameters."""
    text = section(
        [done("SELECT *\nFROM a", "request GET /orders", parameters=(5, "x"), names=("id_1", "token"))], ["token"]
    )

    assert text.splitlines() == [
        "  request GET /orders (asyncpg)  web.py:7 in orders  1 row, 1.0 ms",
        "    SELECT * FROM a  [id_1=5, token=***]",
    ]


def test_error() -> None:
    """A statement that failed is marked, and says why; one that never returned says so."""
    failed = done("INSERT", error="UniqueViolation: duplicate key", rows=None)
    stuck = done("SELECT 1", line=None, seconds=None, rows=None)

    assert section([failed, stuck], ()).splitlines() == [
        "! session (asyncpg)  web.py:7 in orders  1.0 ms",
        "    INSERT",
        "    -> UniqueViolation: duplicate key",
        "  session (asyncpg)  not finished",
        "    SELECT 1",
    ]


def test_ends_of_transactions() -> None:
    """A commit or rollback is told if something was written before it on its connection."""
    lines = section(
        [
            done("INSERT INTO a"),
            done("SELECT 1", client=2),
            done("ROLLBACK", client=2),
            done("UPDATE a"),
            done("ROLLBACK"),
            done("DELETE FROM a"),
            done("COMMIT"),
        ],
        (),
    ).splitlines()

    assert [line.strip() for line in lines[1::2]] == [
        "INSERT INTO a",
        "SELECT 1",
        "UPDATE a",
        "ROLLBACK",
        "DELETE FROM a",
        "COMMIT",
    ]
    assert lines[6] == "  session (asyncpg)  web.py:7 in orders  undid 2 writes"


def test_repeats() -> None:
    """What comes again from the same line is told once, with how often; another line is another statement."""
    other = Line("web.py", 8, "orders")
    text = section([done("SELECT 1"), done("SELECT 1"), done("SELECT 1"), done("SELECT 1", line=other)], ())

    assert text.count("SELECT 1") == 2
    assert "web.py:7 in orders  3 times, 1 row, 3.0 ms" in text


def test_at_most_a_screen() -> None:
    """Of many statements the last are shown, and how many came before."""
    lines = section([done(f"SELECT {number}") for number in range(50)], ()).splitlines()

    assert lines[0] == "... 38 statements before"
    assert len(lines) == 25
    assert lines[-1] == "    SELECT 49"

"""The SQL section of a report."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.sandbox.reports import Executed
from pytest_chatdify_db.tracing.sql_report import section
from pytest_chatdify_db.tracing.statements import Line, Statement

WEB = Line("web.py", 7, "orders")


def done(sql: str, actor: str = "session", **more: object) -> Statement:
    """Return a statement that took a millisecond."""
    fields: dict[str, object] = {"client": 1, "line": WEB, "seconds": 0.001, "rows": 1, **more}
    return Statement(sql, "asyncpg", False, actor, **fields)  # type: ignore[arg-type]  # a stand-in


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
    """Each write says what became of it, and where a rollback came from; what ends transactions takes no line."""
    lines = section(
        [
            done("INSERT INTO a"),
            done("SELECT 1", client=2),
            done("ROLLBACK", client=2),
            done("UPDATE a"),
            done("ROLLBACK"),
            done("DELETE FROM a"),
            done("COMMIT", "request GET /orders", line=None),
            done("INSERT INTO b"),
        ],
        (),
    ).splitlines()

    assert [line.partition(" ms")[2] for line in lines[:10:2]] == [
        ", rolled back at web.py:7 in orders",
        "",
        ", rolled back at web.py:7 in orders",
        ", committed",
        ", not committed",
    ]
    assert not any("COMMIT" in line or "ROLLBACK" in line for line in lines)


def test_savepoints() -> None:
    """A rollback to a savepoint undoes what was written since; a savepoint that is released undoes nothing."""
    lines = section(
        [
            done("INSERT INTO a"),
            done("SAVEPOINT one"),
            done("INSERT INTO b"),
            done("SAVEPOINT two"),
            done("RELEASE SAVEPOINT two"),
            done("INSERT INTO c"),
            done("ROLLBACK TO SAVEPOINT one"),
            done("COMMIT"),
        ],
        (),
    ).splitlines()

    undone = ", rolled back to a savepoint at web.py:7 in orders"
    assert [line.partition(" ms")[2] for line in lines[::2]] == [", committed", undone, undone]


def test_forgotten_commit() -> None:
    """What the application wrote and rolled back has a hint, unless a statement failed or the session is the test's."""
    forgotten = [done("INSERT INTO a", "task ship"), done("ROLLBACK", "task ship")]
    failed = [done("UPDATE a", "task ship"), done("UPDATE a", "task ship", error="UniqueViolation"), done("ROLLBACK")]
    elsewhere = [done("UPDATE a", "request GET /"), done("UPDATE a", client=2, error="DirtyRead"), done("ROLLBACK")]
    earlier = [done("UPDATE a", client=2, error="UniqueViolation"), *forgotten]

    text = section(forgotten, ())

    assert "hint: what task ship wrote at web.py:7 in orders was rolled back, and no statement had failed" in text
    assert "hint" in section(earlier, ())
    assert "hint" in section(forgotten, (), raising={("web.py", "others")})
    assert "hint" not in section(forgotten, (), raising={("web.py", "orders")})
    assert "hint" not in section(failed, ())
    assert "hint" not in section(elsewhere, ())
    assert "hint" not in section([done("INSERT INTO a"), done("ROLLBACK")], ())
    assert "hint" not in section([done("INSERT INTO a", "test"), done("COMMIT", "test")], ())


@pytest.mark.parametrize("kind", ["UndefinedTable", "UndefinedTableError"])
def test_no_such_table(kind: str) -> None:
    """Either driver's error about a table that is not there has a hint, once."""
    statement = done("SELECT 1", error=f'{kind}: relation "orders" does not exist')

    text = section([statement, statement], ())

    assert text.count('hint: nothing has created the table "orders". Import the module of its model') == 1
    assert "DB_MODELS" in text
    assert "--chatdify-db-metadata=" in text


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError: Task <Task pending name='one'> got Future <Future pending> attached to a different loop",
        "RuntimeError: Event loop is closed",
    ],
)
def test_another_event_loop(error: str) -> None:
    """The error of a connection that another loop has opened has a hint, once."""
    statement = done("SELECT 1", error=error)

    text = section([statement, statement], ())

    assert text.count("hint: a connection of an asyncio driver works in the event loop that opened it") == 1
    assert "a poolclass: NullPool, or LoopLocalQueuePool of app.db.pools" in text


def test_two_on_one_connection() -> None:
    """The error of a connection that is still at work has a hint, once."""
    statement = done("SELECT 1", error="InterfaceError: cannot perform operation: another operation is in progress")

    text = section([statement, statement], ())

    assert text.count("hint: two have used one connection at once: two tasks with the same session, or two event") == 1


def test_different_fates() -> None:
    """Writes of different fates are told apart, though they come from one line."""
    text = section([done("INSERT INTO a"), done("COMMIT"), done("INSERT INTO a"), done("ROLLBACK")], ())

    assert text.count("INSERT INTO a") == 2


def test_other_connections() -> None:
    """The last six, without values and without what steers transactions; they are a section by themselves too."""
    others = [Executed(7, "child" * (number % 2), f"SELECT {number}, 'x''y'", number == 9) for number in range(10)]

    lines = section([], (), [*others, Executed(7, "", "COMMIT", False), Executed(8, "", "COMMIT", True)]).splitlines()

    assert lines[:3] == [
        "by child processes, or drivers without an engine of SQLAlchemy:",
        "... 5 left out",
        "  connection 7 (child): SELECT 5, '...'",
    ]
    assert lines[-2:] == ["! connection 7 (child): SELECT 9, '...'  failed", "! connection 8: COMMIT  failed"]
    assert section([], (), [Executed(7, "", "BEGIN", False)]) == ""
    # A text that was cut in the middle of a value.
    assert section([], (), [Executed(7, "", "SELECT 'secr", False)]).endswith("SELECT '...'")


def test_repeats() -> None:
    """What comes again from the same line is told once, with how often; another line is another statement."""
    other = Line("web.py", 8, "orders")
    text = section([done("SELECT 1"), done("SELECT 1"), done("SELECT 1"), done("SELECT 1", line=other)], ())

    assert text.count("SELECT 1") == 2
    assert "web.py:7 in orders  3 times, 1 row, 3.0 ms" in text


def test_at_most_a_screen() -> None:
    """Of many statements the last are shown, and how many came before."""
    lines = section([done(f"SELECT {number}") for number in range(50)], ()).splitlines()

    assert lines[0] == "... 38 statements left out"
    assert len(lines) == 25
    assert lines[-1] == "    SELECT 49"


def test_what_failed_and_what_wrote_stays() -> None:
    """Reads are left out first, wherever they stand; then writes; the last statements are always shown."""
    reads = [done(f"SELECT {number}") for number in range(50)]
    first = [done("INSERT INTO first"), done("UPDATE x", error="UniqueViolation: x")]

    lines = section([*first, *reads], ()).splitlines()

    assert lines[1] == "    INSERT INTO first"
    assert lines[3:5] == ["    UPDATE x", "    -> UniqueViolation: x"]
    assert lines[5] == "... 40 statements left out"
    many = section([first[1], *(done(f"INSERT INTO t{number}") for number in range(50)), *reads], ())
    assert "UPDATE x" in many
    assert "SELECT 46" in many
    assert "SELECT 45" not in many
    assert "INSERT INTO t49" in many

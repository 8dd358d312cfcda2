"""What is kept of a statement, and how it is shown."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.tracing.statements import Line, Statement, is_control, is_write, one_line, shown_parameters

MASKED = ("password", "token")


@pytest.mark.parametrize(
    "sql", ["SAVEPOINT a", " release savepoint a", "COMMIT", "START  TRANSACTION", "SET LOCAL x = 1"]
)
def test_control(sql: str) -> None:
    """What only steers a transaction is told apart, and is no write."""
    assert is_control(sql)
    assert not is_write(sql)


@pytest.mark.parametrize("sql", ["SELECT 1", "SET search_path = x", "committed", "VALUES (1)"])
def test_no_control(sql: str) -> None:
    """Anything else counts."""
    assert not is_control(sql)


def test_write() -> None:
    """A change of rows or tables is a write, also behind WITH; a lock is none."""
    assert is_write("insert INTO a VALUES (1)")
    assert is_write("CREATE TABLE a ()")
    assert is_write("WITH b AS (\nSELECT 1) UPDATE a SET x = 1")
    assert not is_write("WITH b AS (SELECT 1) SELECT * FROM b")
    assert not is_write("SELECT * FROM a FOR UPDATE")


def test_one_line() -> None:
    """Line breaks go, most of a long list of columns goes, and the end of a long text."""
    columns = ", ".join(f"users.column_{number}" for number in range(30))

    assert one_line("SELECT\n  1") == "SELECT 1"
    assert one_line(f"SELECT {columns} FROM users WHERE users.id = $1").endswith(", ... FROM users WHERE users.id = $1")
    assert len(one_line("x" * 400)) == 300
    assert one_line("x" * 400, 20) == "x" * 16 + " ..."


def test_text() -> None:
    """As text a statement is its driver and its line."""
    assert str(Statement("SELECT\n1", "asyncpg")) == "[asyncpg] SELECT 1"
    assert str(Statement("INSERT", "psycopg2", is_many=True)) == "[psycopg2] INSERT (executemany)"


def test_line() -> None:
    """A line is written as editors find it, with its function unless it is in none."""
    assert str(Line("app/web.py", 7, "orders")) == "app/web.py:7 in orders"
    assert str(Line("app/web.py", 7, "<module>")) == "app/web.py:7"


@pytest.mark.parametrize(
    ("parameters", "names", "shown"),
    [
        (None, None, ""),
        ((), None, ""),
        ("text", None, ""),
        ({"name_1": "Ann"}, None, "name_1='Ann'"),
        (("Ann", 1), None, "$1='Ann', $2=1"),
        (("Ann", 1), ["name", "id_1"], "name='Ann', id_1=1"),
        (("Ann",), ["name", "id_1"], "$1='Ann'"),
        ({"user_Password_1": "pw", "token": "t", "x": 1}, None, "user_Password_1=***, token=***, x=1"),
        (("y" * 99,), None, "$1='" + "y" * 36 + "..."),
        (tuple(range(10)), None, "$1=0, $2=1, $3=2, $4=3, $5=4, $6=5, $7=6, $8=7, ... 2 more"),
    ],
)
def test_parameters(parameters: object, names: list[str] | None, shown: str) -> None:
    """Parameters are shown with their names, shortened; those with a secret's name are not shown."""
    assert shown_parameters(Statement("", "", parameters=parameters, names=names), MASKED) == shown


def test_parameters_of_many() -> None:
    """Of many sets the first is shown; one flat set for many rows is as any other."""
    flat = Statement("", "", is_many=True, parameters=("a", "b"))
    one = Statement("", "", is_many=True, parameters=[{"id": 1}])
    many = Statement("", "", is_many=True, parameters=[{"id": 1}, {"id": 2}, {"id": 3}])

    assert shown_parameters(flat, MASKED) == "$1='a', $2='b'"
    assert shown_parameters(one, MASKED) == "id=1"
    assert shown_parameters(many, MASKED) == "id=1 and 2 more"


def test_was_sent_as() -> None:
    """A server saw the text as it is, or with psycopg2's parameters in it."""
    own = Statement("SELECT a FROM b WHERE c = %(c_1)s AND d LIKE '%%x'", "psycopg2")

    assert own.was_sent_as("SELECT a FROM b WHERE c = 'it''s (1)' AND d LIKE '%x';")
    assert not own.was_sent_as("SELECT a FROM b WHERE c = 1")
    assert Statement("SELECT $1", "asyncpg").was_sent_as("SELECT $1")

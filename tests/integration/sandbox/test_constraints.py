"""Deferred constraints of clients that write at the same time: the error reaches the client whose COMMIT it is."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.errors import ForeignKeyViolation

from .stage import StagedSandbox

Two = tuple[psycopg2.extensions.connection, psycopg2.extensions.connection]

_TABLES = """
    CREATE TABLE mothers (id int PRIMARY KEY);
    CREATE TABLE boys (id int PRIMARY KEY, parent int REFERENCES mothers DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE girls (id int PRIMARY KEY, parent int REFERENCES mothers DEFERRABLE INITIALLY DEFERRED);
"""


@pytest.fixture
def two(sandbox: StagedSandbox) -> Iterator[Two]:
    """Two connections in transactions of their own, on tables with deferred keys, closed after the test."""
    first, second = psycopg2.connect(sandbox.url), psycopg2.connect(sandbox.url)
    with first.cursor() as cursor:
        cursor.execute(_TABLES)
    first.commit()
    yield first, second
    first.close()
    second.close()


def _run(connection: psycopg2.extensions.connection, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_a_commit_is_not_blamed_for_what_another_has_pending(two: Two) -> None:
    """A client without a fault commits while another's rows still miss their parent, which then fails by itself."""
    first, second = two
    _run(first, "INSERT INTO boys VALUES (1, 9)")
    _run(second, "INSERT INTO mothers VALUES (5)")

    second.commit()
    with pytest.raises(ForeignKeyViolation):
        first.commit()


def test_a_commit_is_blamed_for_its_own_rows_while_another_has_some_pending(two: Two) -> None:
    """The client at fault hears of it at its own COMMIT; the other repairs its rows and commits."""
    first, second = two
    _run(first, "INSERT INTO boys VALUES (1, 9)")
    _run(second, "INSERT INTO girls VALUES (1, 8)")

    with pytest.raises(ForeignKeyViolation, match="girls"):
        second.commit()
    _run(first, "INSERT INTO mothers VALUES (9)")
    first.commit()


def test_a_table_that_both_write_to_is_checked_at_the_last_commit(two: Two) -> None:
    """Where the server cannot say whose rows are at fault, the first COMMIT passes and the last one decides."""
    first, second = two
    _run(first, "INSERT INTO boys VALUES (1, 9)")
    _run(second, "INSERT INTO mothers VALUES (3); INSERT INTO boys VALUES (2, 3)")

    second.commit()
    with pytest.raises(ForeignKeyViolation):
        first.commit()


def test_an_immediate_check_waits_for_commit_while_another_has_rows_that_fail_it(two: Two) -> None:
    """The server would check both clients' rows, so SET CONSTRAINTS IMMEDIATE of one takes effect at its COMMIT."""
    first, second = two
    _run(first, "SET CONSTRAINTS ALL IMMEDIATE")
    _run(second, "INSERT INTO boys VALUES (1, 9)")
    _run(first, "INSERT INTO girls VALUES (1, 8)")

    with pytest.raises(ForeignKeyViolation, match="girls"):
        first.commit()
    _run(second, "INSERT INTO mothers VALUES (9)")
    second.commit()

"""Deferred constraints of clients that write at the same time: the error reaches the client whose COMMIT it is."""

from __future__ import annotations

import psycopg2
import pytest
from psycopg2.errors import ForeignKeyViolation

from .stage import StagedSandbox

_TABLES = """
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE sons (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE daughters (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
"""


@pytest.fixture
def two(sandbox: StagedSandbox) -> tuple[psycopg2.extensions.connection, psycopg2.extensions.connection]:
    """Two connections in transactions of their own, on tables with deferred keys."""
    first, second = psycopg2.connect(sandbox.url), psycopg2.connect(sandbox.url)
    with first.cursor() as cursor:
        cursor.execute(_TABLES)
    first.commit()
    return first, second


def _run(connection: psycopg2.extensions.connection, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_a_commit_is_not_blamed_for_what_another_has_pending(
    two: tuple[psycopg2.extensions.connection, psycopg2.extensions.connection],
) -> None:
    """A client without a fault commits while another's rows still miss their parent, which then fails by itself."""
    first, second = two
    _run(first, "INSERT INTO sons VALUES (1, 9)")
    _run(second, "INSERT INTO parents VALUES (5)")

    second.commit()
    with pytest.raises(ForeignKeyViolation):
        first.commit()


def test_a_commit_is_blamed_for_its_own_rows_while_another_has_some_pending(
    two: tuple[psycopg2.extensions.connection, psycopg2.extensions.connection],
) -> None:
    """The client at fault hears of it at its own COMMIT; the other repairs its rows and commits."""
    first, second = two
    _run(first, "INSERT INTO sons VALUES (1, 9)")
    _run(second, "INSERT INTO daughters VALUES (1, 8)")

    with pytest.raises(ForeignKeyViolation, match="daughters"):
        second.commit()
    _run(first, "INSERT INTO parents VALUES (9)")
    first.commit()


def test_a_table_that_both_write_to_is_checked_at_the_last_commit(
    two: tuple[psycopg2.extensions.connection, psycopg2.extensions.connection],
) -> None:
    """Where the server cannot say whose rows are at fault, the first COMMIT passes and the last one decides."""
    first, second = two
    _run(first, "INSERT INTO sons VALUES (1, 9)")
    _run(second, "INSERT INTO parents VALUES (3); INSERT INTO sons VALUES (2, 3)")

    second.commit()
    with pytest.raises(ForeignKeyViolation):
        first.commit()

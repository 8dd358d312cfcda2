"""What a sandbox's clients have written, committed for it alone, is copied into a database of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg2
import pytest

from pytest_chatdify_db.databases import copies
from pytest_chatdify_db.databases.copies import Copied
from pytest_chatdify_db.errors import CopyFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.sandbox.handle import Sandbox
from pytest_chatdify_db.servers import Server, admin
from tests.integration.stand import running_server

TABLES = """
CREATE TABLE authors (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE books (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author_id int NOT NULL REFERENCES authors ON DELETE CASCADE,
    next_id int REFERENCES books,
    price numeric,
    gross numeric GENERATED ALWAYS AS (price * 2) STORED
);
CREATE TABLE log (line text);
CREATE TABLE "Odd schema" (x int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR DELETE OR TRUNCATE ON authors EXECUTE FUNCTION note();
CREATE MATERIALIZED VIEW shelf AS SELECT count(*) FROM books;
CREATE TABLE parted (x int) PARTITION BY RANGE (x);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TYPE mood AS ENUM ('good');
INSERT INTO authors (name) VALUES ('of the template');
INSERT INTO books (author_id, price) VALUES (1, 1.5);
INSERT INTO "Odd schema" VALUES (1);
"""

Client = Callable[..., list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server on which two roles, a superuser and one that is none, have each a template."""
    with running_server() as (made, _):
        with connect(made.address) as connection:
            connection.query("CREATE ROLE owner LOGIN CREATEDB")
        for user in ("postgres", "owner"):
            address = replace(made.address, user=user)
            with connect(address) as connection:
                for name in (f"template_{user}", f"worker_{user}"):
                    template = "template0" if name.startswith("template") else f"template_{user}"
                    admin.create_database(connection, name, template=template)
                    if template == "template0":
                        with connect(address.with_database(name)) as filling:
                            filling.query(TABLES)
        yield made


@pytest.fixture(params=["postgres", "owner"])
def role(request: pytest.FixtureRequest, server: Server) -> Address:
    """Return the server's address for a superuser, and then for a role that may create databases and no more."""
    return replace(server.address, user=request.param)


@pytest.fixture
def sandbox(role: Address) -> Iterator[Address]:
    """Return the address of a sandbox on the role's worker database."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = Address(
        host="127.0.0.1", port=listener.getsockname()[1], user=role.user, password="secret", database="app"
    )
    running = Sandbox.start(
        listener=listener,
        server=role.with_database(f"worker_{role.user}"),
        user=role.user,
        password="secret",
        database="app",
    )
    yield address
    running.stop()
    listener.close()


@pytest.fixture
def target(role: Address) -> Iterator[Address]:
    """Return a new database like the worker's."""
    with connect(role) as connection:
        admin.create_database(connection, "target", template=f"template_{role.user}")
        yield role.with_database("target")
        admin.drop_database(connection, "target")


def run(address: Address, *statements: str) -> list[tuple[object, ...]]:
    """Execute *statements*, each for itself, and return the rows of the last one."""
    connection = psycopg2.connect(address.url())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_nothing_is_copied_where_nothing_was_written(sandbox: Address, target: Address) -> None:
    """Reading and temporary tables leave nothing to copy."""
    run(sandbox, "SELECT * FROM authors", "CREATE TEMPORARY TABLE scratch (x int)", "INSERT INTO scratch VALUES (1)")

    assert copies.copy_rows(sandbox, target) == Copied((), ())


def test_rows_are_the_source_s(sandbox: Address, target: Address) -> None:
    """Inserted, changed and deleted rows, in an order that foreign keys would refuse, and no trigger fires."""
    run(
        sandbox,
        "INSERT INTO authors (name) VALUES ('tab\tand \\ in it'), (U&'\\00fc')",
        "INSERT INTO books (author_id, price) VALUES (2, 0.1), (3, NULL)",
        "UPDATE books SET next_id = 3 WHERE id = 2",
        "DELETE FROM books WHERE id = 1",
        "UPDATE authors SET name = 'changed' WHERE id = 1",
    )

    copied = copies.copy_rows(sandbox, target)

    assert set(copied.tables) == {"public.authors", "public.books", "public.log"}
    assert copied.missing == ()
    for query in (
        "SELECT * FROM authors ORDER BY id",
        "SELECT * FROM books ORDER BY id",
        "SELECT * FROM log",
        'SELECT * FROM "Odd schema"',
    ):
        assert run(target, query) == run(sandbox, query)


def test_rows_that_others_refer_to_stay(sandbox: Address, target: Address) -> None:
    """Replacing the rows of a table deletes none in tables that refer to it."""
    run(sandbox, "UPDATE authors SET name = 'changed'")

    copies.copy_rows(sandbox, target)

    assert run(target, "SELECT name, price FROM authors JOIN books ON author_id = authors.id") == run(
        sandbox, "SELECT name, price FROM authors JOIN books ON author_id = authors.id"
    )


def test_constraints_and_triggers_are_as_before(sandbox: Address, target: Address) -> None:
    """What was out of the way for the copy is there again afterwards."""
    run(sandbox, "INSERT INTO authors (name) VALUES ('new')")

    copies.copy_rows(sandbox, target)

    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        run(target, "INSERT INTO books (author_id) VALUES (99)")
    before = run(target, "SELECT count(*) FROM log")[0][0]
    assert run(target, "INSERT INTO authors (name) VALUES ('one')", "SELECT count(*) FROM log") == [
        (int(str(before)) + 1,)
    ]
    assert run(target, "SELECT bool_or(condeferrable) FROM pg_constraint WHERE contype = 'f'") == [(False,)]


def test_sequences_go_on_after_the_rows(sandbox: Address, target: Address) -> None:
    """The next row gets an id that is free, as from the source."""
    run(sandbox, "INSERT INTO authors (name) VALUES ('a'), ('b')")

    copies.copy_rows(sandbox, target)

    expected = run(sandbox, "SELECT last_value + 1 FROM authors_id_seq")
    assert run(target, "INSERT INTO authors (name) VALUES ('c') RETURNING id") == expected


def test_truncated_tables_partitions_and_views(sandbox: Address, target: Address) -> None:
    """TRUNCATE counts as writing, rows go to their partition, a materialised view is made again."""
    run(sandbox, 'TRUNCATE "Odd schema"', "TRUNCATE books", "INSERT INTO parted VALUES (5)")
    run(sandbox, "REFRESH MATERIALIZED VIEW shelf")

    copied = copies.copy_rows(sandbox, target)

    assert set(copied.tables) == {'public."Odd schema"', "public.books", "public.part", "public.shelf"}
    assert copied.missing == ()
    assert run(target, 'SELECT count(*) FROM "Odd schema"') == [(0,)]
    assert run(target, "SELECT * FROM parted") == [(5,)]
    assert run(target, "SELECT * FROM shelf") == [(0,)]


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("CREATE TABLE made (x int)", {"table made"}),
        ("DROP TABLE log", {"table log"}),
        ("ALTER TABLE log ADD y int", {"column y of table log"}),
        ("ALTER TABLE log ALTER line SET NOT NULL", {"column line of table log"}),
        ("CREATE INDEX added ON log (line)", {"index added"}),
        ("CREATE VIEW seen AS SELECT 1", {"view seen"}),
        ("CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'", {"function made()"}),
        ("ALTER TYPE mood ADD VALUE 'bad'", {"type mood"}),
        ("CREATE SCHEMA made", {"schema made"}),
        ("SELECT lo_create(77777)", {"large object 77777"}),
        ("ALTER TABLE authors DISABLE TRIGGER noted", {"trigger noted on table authors"}),
    ],
)
def test_changes_of_the_schema_are_told(sandbox: Address, target: Address, statement: str, missing: set[str]) -> None:
    """What cannot be copied is described, and the rows of the other tables are copied all the same."""
    run(sandbox, "INSERT INTO part VALUES (1)", statement)

    copied = copies.copy_rows(sandbox, target)

    assert missing <= set(copied.missing)
    assert copied.tables == ("public.part",)


def test_a_refusal_is_one_error_and_leaves_the_target(sandbox: Address, target: Address) -> None:
    """What the server says stands in the text, and no table is half full."""
    run(sandbox, "INSERT INTO authors (name) VALUES ('new')", "INSERT INTO parted VALUES (5)")
    run(target, "ALTER TABLE part ADD CHECK (x > 7)")

    with pytest.raises(CopyFailed, match="could not copy the rows of the sandbox") as caught:
        copies.copy_rows(sandbox, target)

    assert 'violates check constraint "part_x_check"' in caught.value.cause
    assert "secret" not in str(caught.value)
    assert run(target, "SELECT count(*) FROM authors") == [(1,)]

"""What one client does to the shared session, and must not do to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import asyncpg
import psycopg2
import pytest

from pytest_chatdify_db.postgres.connection import connect as connect_plainly

from .stage import StagedSandbox

Connection = psycopg2.extensions.connection

_WRITERS = """
    CREATE TABLE written (id serial PRIMARY KEY);
    CREATE FUNCTION "doWrite"() RETURNS int LANGUAGE sql AS 'INSERT INTO written DEFAULT VALUES RETURNING id';
    CREATE FUNCTION stably() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN "doWrite"(); END';
    CREATE VIEW writing AS SELECT "doWrite"() AS id;
    CREATE VIEW nested AS SELECT id FROM writing;
"""


@pytest.fixture
def connect(sandbox: StagedSandbox) -> Iterator[Connection]:
    """A connection in autocommit mode, closed after the test."""
    connection = psycopg2.connect(sandbox.url)
    connection.autocommit = True
    yield connection
    connection.close()


@pytest.fixture
def other(sandbox: StagedSandbox) -> Iterator[Connection]:
    """Another one."""
    connection = psycopg2.connect(sandbox.url)
    connection.autocommit = True
    yield connection
    connection.close()


def run(connection: Connection, sql: str) -> list[tuple[object, ...]]:
    """Run *sql* and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize(
    "statement",
    [
        'SELECT "doWrite"()',
        'SELECT "doWrite"/* a comment */()',
        "SELECT stably()",
        "SELECT * FROM writing",
        "SELECT * FROM nested",
        'BEGIN; DECLARE c CURSOR FOR SELECT "doWrite"(); FETCH c; COMMIT',
    ],
)
def test_an_error_does_not_undo_what_another_client_wrote_by_a_function(
    connect: Connection, other: Connection, statement: str
) -> None:
    """A row that a SELECT has stored is there after somebody else's statement has failed."""
    run(connect, _WRITERS)
    run(connect, "SELECT 1")
    run(connect, statement)

    with pytest.raises(psycopg2.errors.DivisionByZero):
        run(other, "SELECT 1 / 0")
    assert run(connect, "SELECT count(*) FROM written") == [(1,)]


def test_a_statement_that_is_cancelled_before_its_turn_is_not_run(
    connect: Connection, other: Connection, sandbox: StagedSandbox
) -> None:
    """A client that gives up while another one is served gets its error at once, and no row."""
    with connect_plainly(sandbox.behind) as beside, ThreadPoolExecutor() as threads:
        beside.query("SELECT pg_advisory_lock(7)")
        run(connect, "SET statement_timeout = '20s'")  # nobody waits for ever, should no cancel request be heard
        busy = threads.submit(run, connect, "SELECT pg_advisory_xact_lock(7)")
        while not beside.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            assert not busy.done()
        late = threads.submit(run, other, "INSERT INTO items (id, name) VALUES (9, 'late')")
        while not wait([late], timeout=0.01).done:
            assert not busy.done()
            other.cancel()  # the first ones may come before the statement
        with pytest.raises(psycopg2.errors.QueryCanceled):
            late.result()
        assert not busy.done()
        beside.query("SELECT pg_advisory_unlock(7)")

    assert run(other, "SELECT count(*) FROM items WHERE name = 'late'") == [(0,)]


def test_a_role_that_was_dropped_hurts_only_the_client_that_had_it(connect: Connection, other: Connection) -> None:
    """Its next statement fails and says why; it goes on after that, and nobody else notices."""
    run(other, "CREATE ROLE tenant")
    run(connect, "SET ROLE tenant")
    run(other, "DROP ROLE tenant")

    with pytest.raises(psycopg2.Error, match='role "tenant" does not exist'):
        run(connect, "SELECT 1")
    assert run(connect, "SELECT 1") == [(1,)]
    assert run(other, "SELECT 2") == [(2,)]


def test_set_schema_is_one_clients(connect: Connection, other: Connection) -> None:
    """SET SCHEMA sets a search path, and that belongs to its client."""
    run(connect, "CREATE SCHEMA tenant")
    run(connect, "SET SCHEMA 'tenant'")

    assert run(connect, "SHOW search_path") == [("tenant",)]
    assert run(other, "SHOW search_path") == [('"$user", public',)]


def test_the_last_argument_of_set_config_decides(connect: Connection, other: Connection) -> None:
    """A call inside the call has arguments of its own."""
    run(connect, "BEGIN")
    run(connect, "SELECT set_config('app.name', coalesce(current_setting('app.other', true), 'x'), false)")
    run(connect, "COMMIT")
    run(other, "SELECT 1")

    assert run(connect, "SHOW app.name") == [("x",)]


def test_asyncpg_does_not_go_on_with_definitions_that_are_undone(sandbox: StagedSandbox) -> None:
    """A connection that has statements in store is closed when a test's changes to tables are undone."""

    async def main() -> None:
        connection = await asyncpg.connect(sandbox.url)
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        sandbox.push("a test that changes a table")
        await connection.execute("ALTER TABLE items ADD COLUMN more int")
        await connection.fetch("SELECT * FROM items")
        sandbox.pop()
        await closed.wait()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_asyncpg_keeps_its_connection_where_no_table_changed(sandbox: StagedSandbox) -> None:
    """Statements in store outlive a test that only wrote rows."""

    async def main() -> None:
        connection = await asyncpg.connect(sandbox.url)
        for name in ("first", "second"):
            sandbox.push(name)
            await connection.execute("INSERT INTO items (id, name) VALUES (9, $1)", name)
            assert await connection.fetchval("SELECT count(*) FROM items WHERE name = $1", name) == 1
            sandbox.pop()
        await connection.close()

    asyncio.run(main())


def test_a_rollback_that_closes_another_clients_cursor_is_told_by_name(connect: Connection, other: Connection) -> None:
    """The next read of the cursor fails, and the error says which client's rollback it was."""
    run(other, "SET application_name = 'writer'; BEGIN; INSERT INTO items (id) VALUES (10)")
    run(connect, "SET application_name = 'reader'; BEGIN; DECLARE c CURSOR FOR SELECT 1")
    run(other, "ROLLBACK")

    with pytest.raises(psycopg2.errors.SerializationFailure) as refused:
        run(connect, "FETCH c")
    assert "(reader) opened the cursor after connection" in str(refused.value.diag.message_detail)
    assert "(writer) has rolled back since" in str(refused.value.diag.message_detail)
    run(connect, "ROLLBACK")

"""The drivers themselves: COPY, cancelling, big results, resets, settings, constraints at COMMIT."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any, Literal

import asyncpg
import psycopg
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest

from pytest_chatdify_db.postgres.connection import connect as connect_direct
from pytest_chatdify_db.postgres.errors import ServerError

from .stage import StagedSandbox

Connection = psycopg2.extensions.connection
Form = Literal["text", "csv", "binary"]

_TERMINATED = "terminating connection due to administrator command"


@pytest.fixture
def sync(sandbox: StagedSandbox) -> Iterator[Connection]:
    """Give a psycopg2 connection."""
    with closing(psycopg2.connect(sandbox.url)) as connection:
        yield connection


@asynccontextmanager
async def connected(sandbox: StagedSandbox, **options: Any) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Give an asyncpg connection."""
    connection = await asyncpg.connect(sandbox.url, **options)
    try:
        yield connection
    finally:
        await connection.close()


def fetch(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def value(connection: Connection, sql: str) -> Any:
    """Return the first column of the first row."""
    return fetch(connection, sql)[0][0]


def test_the_sync_driver_works_between_parse_and_bind(sandbox: StagedSandbox, sync: Connection) -> None:
    """asyncpg has prepared a statement and not yet executed it; a psycopg2 call on the same thread is answered."""

    async def main() -> None:
        async with connected(sandbox) as connection:
            statement = await connection.prepare("SELECT name FROM items WHERE id = $1")
            fetch(sync, "UPDATE items SET name = 'changed' WHERE id = 1")
            sync.commit()
            assert await statement.fetchval(1) == "changed"

    asyncio.run(main())


def test_an_error_in_autocommit_undoes_that_statement_alone(sandbox: StagedSandbox, sync: Connection) -> None:
    """Of either driver; the other one, in the middle of a transaction, keeps its rows."""
    sync.autocommit = True

    async def main() -> None:
        async with connected(sandbox) as connection:
            async with connection.transaction():
                await connection.execute("INSERT INTO items (id) VALUES (10)")
                with pytest.raises(psycopg2.errors.UniqueViolation):
                    fetch(sync, "INSERT INTO items (id) VALUES (11), (1)")
                fetch(sync, "INSERT INTO items (id) VALUES (12)")
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute("INSERT INTO items (id) VALUES (13), (1)")
            assert await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM items") == [1, 2, 3, 10, 12]

    asyncio.run(main())


def test_copy_reads_rows_that_another_connection_makes_meanwhile(sandbox: StagedSandbox, sync: Connection) -> None:
    """The producer of asyncpg's COPY asks through psycopg2 for each row it gives, and nobody waits for ever."""

    async def main() -> None:
        async def rows() -> AsyncIterator[tuple[int, str]]:
            for number in range(10, 40):
                fetch(sync, f"INSERT INTO parents VALUES ({number})")
                sync.commit()
                yield number, f"copied {number}"
                await asyncio.sleep(0)

        async with connected(sandbox) as connection:
            tag = await connection.copy_records_to_table("items", records=rows(), columns=["id", "name"])
            assert tag == "COPY 30"

    asyncio.run(main())
    assert fetch(sync, "SELECT count(*), min(name) FROM items WHERE id >= 10") == [(30, "copied 10")]
    assert value(sync, "SELECT count(*) FROM parents") == 31


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_copy_goes_both_ways(sandbox: StagedSandbox, sync: Connection, form: Form) -> None:
    """What psycopg2 copies out asyncpg copies in, and the other way round."""
    out = io.BytesIO()
    with sync.cursor() as cursor:
        cursor.execute("CREATE TABLE copies (LIKE items)")
        cursor.copy_expert(f"COPY (SELECT * FROM items ORDER BY id) TO STDOUT (FORMAT {form})", out)
    sync.commit()

    async def main() -> bytes:
        back = io.BytesIO()
        async with connected(sandbox) as connection:
            out.seek(0)
            assert await connection.copy_to_table("copies", source=out, format=form) == "COPY 3"
            query = "SELECT * FROM copies ORDER BY id"
            assert await connection.copy_from_query(query, output=back, format=form) == "COPY 3"
        return back.getvalue()

    assert asyncio.run(main()) == out.getvalue()
    with sync.cursor() as cursor:
        cursor.copy_expert(f"COPY copies FROM STDIN (FORMAT {form})", io.BytesIO(out.getvalue()))
    assert value(sync, "SELECT count(*) FROM copies") == 6


def test_a_failed_copy_leaves_nothing(sandbox: StagedSandbox, sync: Connection) -> None:
    """Neither bad data nor a producer that raises adds a row, and the connection works on."""
    with sync.cursor() as cursor, pytest.raises(psycopg2.errors.BadCopyFileFormat):
        cursor.copy_expert("COPY items (id, name) FROM STDIN", io.StringIO("10\tten\n11\n"))
    sync.rollback()

    async def main() -> None:
        async def rows() -> AsyncIterator[tuple[int]]:
            yield (10,)
            raise LookupError("no more")

        async with connected(sandbox) as connection:
            with pytest.raises(LookupError, match="no more"):
                await connection.copy_records_to_table("items", records=rows(), columns=["id"])
            assert await connection.fetchval("SELECT count(*) FROM items") == 3

    asyncio.run(main())


def test_a_running_statement_is_cancelled(sandbox: StagedSandbox, sync: Connection) -> None:
    """By psycopg2's cancel from another thread and by asyncpg's timeout; both connections work on."""
    cancelling = threading.Thread(target=sync.cancel)
    with sync.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
        cursor.execute("SELECT 1")
        cancelled = threading.Timer(0.2, cancelling.start)
        cancelled.start()
        cursor.execute("SELECT pg_sleep(30)")
    cancelled.join()
    cancelling.join()
    sync.rollback()

    async def main() -> None:
        async with connected(sandbox) as connection:
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(30)", timeout=0.2)
            assert await connection.fetchval("SELECT 1") == 1

    asyncio.run(main())
    assert value(sync, "SELECT 1") == 1


def test_a_statement_timeout_ends_its_own_clients_statement(sandbox: StagedSandbox, sync: Connection) -> None:
    """It holds for the client that has set it and for nobody else."""
    with closing(psycopg2.connect(sandbox.url, options="-c statement_timeout=100ms")) as hurried:
        fetch(hurried, "INSERT INTO items (id) VALUES (10)")
        hurried.commit()
        with pytest.raises(psycopg2.errors.QueryCanceled, match="statement timeout"):
            fetch(hurried, "SELECT pg_sleep(30)")
        fetch(sync, "SELECT pg_sleep(0.2)")
        hurried.rollback()
        assert value(hurried, "SELECT count(*) FROM items") == 4


def test_big_results_and_values_arrive_whole(sandbox: StagedSandbox, sync: Connection) -> None:
    """50,000 rows and a value of 5 MB, each by both drivers and in both directions."""
    rows = "SELECT n, md5(n::text) FROM generate_series(1, 50000) n"
    blob = bytes(range(256)) * 20_000
    with sync.cursor() as cursor:
        cursor.execute("CREATE TABLE blobs (data bytea)")
        cursor.execute("INSERT INTO blobs VALUES (%s)", (psycopg2.Binary(blob),))
    sync.commit()

    async def main() -> list[tuple[Any, ...]]:
        async with connected(sandbox) as connection:
            assert await connection.fetchval("SELECT data FROM blobs") == blob
            await connection.execute("INSERT INTO blobs VALUES ($1)", blob)
            return [tuple(row) for row in await connection.fetch(rows)]

    assert asyncio.run(main()) == fetch(sync, rows)
    assert [bytes(row[0]) == blob for row in fetch(sync, "SELECT data FROM blobs")] == [True, True]


def test_a_pool_resets_its_connections_alone(sandbox: StagedSandbox, sync: Connection) -> None:
    """asyncpg's reset query takes back what its own client has set, and no cursor or setting of another one."""
    fetch(sync, "SET application_name = 'kept'")
    fetch(sync, "DECLARE numbers CURSOR FOR SELECT generate_series(1, 4)")
    assert fetch(sync, "FETCH 2 FROM numbers") == [(1,), (2,)]

    async def main() -> None:
        async with asyncpg.create_pool(sandbox.url, min_size=1, max_size=1) as pool:
            async with pool.acquire() as connection:
                await connection.execute("SET application_name = 'lost'")
                assert await connection.fetchval("SELECT name FROM items WHERE id = $1", 1) == "one"
            async with pool.acquire() as connection:
                assert await connection.fetchval("SHOW application_name") == ""
                assert await connection.fetchval("SELECT name FROM items WHERE id = $1", 2) == "two"

    asyncio.run(main())
    assert fetch(sync, "FETCH 2 FROM numbers") == [(3,), (4,)]
    assert value(sync, "SHOW application_name") == "kept"


def test_discard_all_is_for_its_own_client(sandbox: StagedSandbox, sync: Connection) -> None:
    """psycopg2's reset takes back settings and prepared statements of its connection; another one's statements stay."""

    async def main() -> None:
        async with connected(sandbox) as connection:
            statement = await connection.prepare("SELECT count(*) FROM items")
            fetch(sync, "SET search_path = pg_catalog")
            fetch(sync, "PREPARE mine AS SELECT 1")
            sync.commit()
            sync.reset()
            assert value(sync, "SHOW search_path") == '"$user", public'
            with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
                fetch(sync, "EXECUTE mine")
            assert await statement.fetchval() == 3

    asyncio.run(main())


def test_deferred_constraints_fail_the_commit_that_breaks_them(sandbox: StagedSandbox, sync: Connection) -> None:
    """The error comes at COMMIT, all of the transaction is undone, and other transactions are as they were."""

    async def main() -> None:
        async with connected(sandbox) as connection:
            broken = connection.transaction()
            await broken.start()
            await connection.execute("INSERT INTO children VALUES (1, 77, 1)")
            with pytest.raises(asyncpg.ForeignKeyViolationError, match="children_parent"):
                await broken.commit()

            fetch(sync, "INSERT INTO children VALUES (2, 1, 2)")
            sync.commit()
            async with connection.transaction():
                await connection.execute("INSERT INTO children VALUES (3, 78, 3)")
                async with connection.transaction():
                    await connection.execute("INSERT INTO parents VALUES (78)")
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await connection.execute("INSERT INTO children VALUES (4, 79, 4)")

    asyncio.run(main())
    assert fetch(sync, "SELECT id FROM children ORDER BY id") == [(2,), (3,)]


def test_deferred_constraints_of_two_transactions_are_kept_apart(sandbox: StagedSandbox, sync: Connection) -> None:
    """A client that is in order commits though another one's graph is half built; that one fails at its own COMMIT."""
    fetch(sync, "INSERT INTO children VALUES (1, 77, 1)")

    async def main() -> None:
        async with connected(sandbox) as connection, connection.transaction():
            await connection.execute("INSERT INTO children VALUES (2, 1, 2)")

    asyncio.run(main())
    with pytest.raises(psycopg2.errors.ForeignKeyViolation, match="children_parent"):
        sync.commit()


def test_local_settings_end_with_their_transaction(sandbox: StagedSandbox, sync: Connection) -> None:
    """SET LOCAL and set_config; another client never sees them."""

    async def main() -> None:
        async with connected(sandbox) as connection:
            async with connection.transaction():
                await connection.execute("SET LOCAL work_mem = '1MB'")
                await connection.execute("SELECT set_config('app.tenant', $1, true)", "t1")
                assert await connection.fetchval("SHOW work_mem") == "1MB"
                assert await connection.fetchval("SELECT current_setting('app.tenant')") == "t1"
                assert value(sync, "SHOW work_mem") == "4MB"
                assert value(sync, "SELECT current_setting('app.tenant', true)") in {None, ""}
                sync.rollback()
            assert await connection.fetchval("SHOW work_mem") == "4MB"
            assert await connection.fetchval("SELECT current_setting('app.tenant', true)") in {None, ""}

    asyncio.run(main())


def test_a_rollback_that_cannot_be_done_is_an_error_for_the_next_reader(sandbox: StagedSandbox) -> None:
    """It names both connections and the way out; the next test works."""
    with (
        closing(psycopg2.connect(sandbox.url, application_name="web")) as web,
        closing(psycopg2.connect(sandbox.url, application_name="worker")) as worker,
    ):
        fetch(web, "INSERT INTO items (id) VALUES (10)")
        fetch(worker, "INSERT INTO items (id) VALUES (11)")
        worker.commit()
        web.rollback()
        with pytest.raises(psycopg2.errors.SerializationFailure) as caught:
            fetch(worker, "SELECT * FROM items")
        message = str(caught.value)

        assert re.search(
            r"DETAIL:  in the test, .*web.* rolled back what it had written, but .*worker.* had written since", message
        )
        assert '@pytest.mark.chatdify_db(isolation="database")' in message

        worker.rollback()
        sandbox.pop()
        sandbox.push("the next test")
        assert value(worker, "SELECT count(*) FROM items") == 3


def test_a_transaction_that_outlives_its_test_is_lost(sandbox: StagedSandbox, sync: Connection) -> None:
    """Its statements say so and name that test; a rollback makes the connection usable."""
    fetch(sync, "INSERT INTO items (id) VALUES (10)")
    report = sandbox.pop()
    sandbox.push("the next test")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction, match="begun in the test and neither committed"):
        fetch(sync, "SELECT 1")
    sync.rollback()

    assert len(report.clients_in_transaction) == 1
    assert value(sync, "SELECT count(*) FROM items") == 3


def test_psycopg_3_runs_pipelines(sandbox: StagedSandbox, sync: Connection) -> None:
    """An error in the middle of a pipeline fails what follows it, and psycopg2 sees nothing of either."""
    with psycopg.connect(sandbox.url) as connection:
        with pytest.raises(psycopg.errors.UniqueViolation), connection.pipeline():
            connection.execute("INSERT INTO items (id) VALUES (10)")
            connection.execute("INSERT INTO items (id) VALUES (1)")
            connection.execute("INSERT INTO items (id) VALUES (11)")
        connection.rollback()
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s + 1", (number,)) for number in range(20)]
        assert [cursor.fetchone() for cursor in cursors] == [(number + 1,) for number in range(20)]

    assert value(sync, "SELECT count(*) FROM items") == 3


def test_the_death_of_the_server_process_is_one_clear_error(sandbox: StagedSandbox, sync: Connection) -> None:
    """Whoever was connected is told, the frame's report says why, and the next test works on a new connection."""
    idle = connect_direct(sandbox.address)
    backend = value(sync, "SELECT pg_backend_pid()")
    with connect_direct(sandbox.behind) as other:
        other.query(f"SELECT pg_terminate_backend({backend}, 5000)")
    with pytest.raises(ServerError, match="because the test server has gone away") as caught:
        idle.query("SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        fetch(sync, "SELECT 1")

    assert (caught.value.sqlstate, caught.value.detail) == ("57P01", _TERMINATED)
    assert sandbox.pop().lost == _TERMINATED

    sandbox.push("the next test")
    with closing(psycopg2.connect(sandbox.url)) as again:
        assert value(again, "SELECT count(*) FROM items") == 3

"""Whole programs and features of drivers through the sandbox: psql, pg_dump, large objects, listeners, pipelines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers.binaries import wheel_installations

from .stage import Stage, StagedSandbox


def program(name: str, *arguments: str) -> str:
    """Run a program of the same installation as the server; return what it printed."""
    directory = max(wheel_installations(), key=lambda each: each.major).directory
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [directory / name, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT = r"""
\set ON_ERROR_STOP on
BEGIN;
CREATE TABLE made (id int PRIMARY KEY, at text);
COPY made FROM STDIN;
1	one
2	two
\.
COMMIT;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO made VALUES (3, 'three');
SAVEPOINT mine;
DELETE FROM made;
ROLLBACK TO mine;
COMMIT;
SELECT id, at FROM made ORDER BY id \gset last_
\echo :ROW_COUNT
SELECT count(*) FROM made \bind \g
\copy made TO STDOUT
\d made
"""


def test_psql_runs_a_script(sandbox: StagedSandbox, tmp_path: Path) -> None:
    """psql runs a file with transactions, COPY from the file, savepoints of its own, variables and bound queries."""
    file = tmp_path / "script.sql"
    file.write_text(SCRIPT.replace(r" \gset last_", ";"))

    printed = program("psql", "-X", "-A", "-t", "-f", str(file), sandbox.url)

    assert "1|one\n2|two\n3|three\n3\n3\n1\tone\n2\ttwo\n3\tthree\n" in printed
    sandbox.pop()
    with connect(sandbox.address) as client:
        assert client.query("SELECT to_regclass('made')") == [(None,)]


def test_psql_stops_at_an_error_and_undoes_a_single_transaction(sandbox: StagedSandbox, tmp_path: Path) -> None:
    """``psql --single-transaction`` leaves nothing of a file that fails; exit code and message are psql's own."""
    file = tmp_path / "script.sql"
    file.write_text("INSERT INTO items (id) VALUES (5);\nINSERT INTO items (id) VALUES (5);\n")

    with pytest.raises(AssertionError, match=r"script\.sql:2: ERROR:  duplicate key value"):
        program("psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(file), sandbox.url)

    with connect(sandbox.address) as client:
        assert client.query("SELECT count(*) FROM items") == [("3",)]


def test_pg_dump_sees_what_the_test_has_written(server: Stage, sandbox: StagedSandbox, tmp_path: Path) -> None:
    """A dump of the sandboxed database holds rows and tables that were never committed; it restores elsewhere."""
    with connect(sandbox.address) as client:
        client.query("CREATE TABLE made (id serial PRIMARY KEY, at text)")
        client.query("INSERT INTO made (at) SELECT 'row ' || g FROM generate_series(1, 100) g")
    file = tmp_path / "dump.sql"
    file.write_text(program("pg_dump", "--no-owner", sandbox.url))

    with server.clone("template0") as empty:
        program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), *address_arguments(empty))
        with connect(empty) as restored:
            assert restored.query("SELECT count(*), max(at) FROM made") == [("100", "row 99")]
            assert restored.query("SELECT count(*) FROM items") == [("3",)]


def address_arguments(address: Address) -> list[str]:
    """Return how psql is told an address."""
    return ["-h", address.host, "-p", str(address.port), "-U", address.user, "-d", address.database]


def test_a_dump_is_restored_in_the_sandbox(sandbox: StagedSandbox, tmp_path: Path) -> None:
    """What pg_dump wrote can be read by psql inside the sandbox, and is gone with the test."""
    file = tmp_path / "dump.sql"
    file.write_text(program("pg_dump", "--clean", "--if-exists", "--no-owner", sandbox.url))

    program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), sandbox.url)

    with connect(sandbox.address) as client:
        assert client.query("SELECT count(*) FROM items") == [("3",)]


def test_large_objects(sandbox: StagedSandbox) -> None:
    """psycopg2 writes, reads, truncates and unlinks a large object; a rollback undoes it."""
    connection = psycopg2.connect(sandbox.url)
    large: Any = connection.lobject(0, "wb")
    large.write(b"x" * 100_000)
    oid = large.oid
    large.close()
    connection.commit()

    reader: Any = connection.lobject(oid, "rwb")
    reader.seek(99_990)
    assert reader.read() == b"x" * 10
    reader.truncate(5)
    reader.close()
    connection.rollback()

    again: Any = connection.lobject(oid, "rb")
    assert len(again.read()) == 100_000
    again.unlink()
    connection.commit()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        connection.lobject(oid, "rb")
    connection.close()


def test_listeners_of_asyncpg_hear_what_another_driver_commits(sandbox: StagedSandbox) -> None:
    """A notification sent by psycopg2 reaches asyncpg's listener at COMMIT, once, and not after a rollback."""
    heard: list[str] = []

    async def listen() -> None:
        listener = await asyncpg.connect(sandbox.url)
        came = asyncio.Event()

        def on_news(connection: Any, pid: int, channel: str, payload: object) -> None:
            heard.append(str(payload))
            came.set()

        await listener.add_listener("news", on_news)
        sender = psycopg2.connect(sandbox.url)
        with sender.cursor() as cursor:
            cursor.execute("NOTIFY news, 'lost'")
            sender.rollback()
            cursor.execute("SELECT pg_notify('news', 'kept'), pg_notify('news', 'kept')")
            await listener.fetchval("SELECT 1")
            assert heard == []
            sender.commit()
        await asyncio.wait_for(came.wait(), 10)
        await listener.remove_listener("news", on_news)
        sender.close()
        await listener.close()

    asyncio.run(listen())

    assert heard == ["kept"]


def test_psycopg_3_pipeline_with_an_error_in_the_middle(sandbox: StagedSandbox) -> None:
    """An error in a pipeline aborts what follows it up to the sync, and nothing of that batch stays."""
    with psycopg.connect(sandbox.url, autocommit=True) as connection:
        with contextlib.suppress(psycopg.errors.UniqueViolation), connection.pipeline() as pipeline:
            first = connection.execute("INSERT INTO items (id) VALUES (%s)", [10])
            pipeline.sync()
            connection.execute("INSERT INTO items (id) VALUES (%s)", [11])
            connection.execute("INSERT INTO items (id) VALUES (%s)", [11])
            aborted = connection.execute("INSERT INTO items (id) VALUES (%s)", [12])
            pipeline.sync()
            after = connection.execute("SELECT count(*) FROM items")
            assert first.rowcount == 1
            with pytest.raises(psycopg.errors.PipelineAborted):
                aborted.fetchall()
            assert after.fetchone() == (4,)

        assert connection.execute("SELECT count(*) FROM items").fetchone() == (4,)


def test_psycopg_3_server_side_cursors(sandbox: StagedSandbox) -> None:
    """Named cursors of two connections have the same name, and one WITH HOLD outlives its transaction."""
    with psycopg.connect(sandbox.url) as first, psycopg.connect(sandbox.url) as second:
        kept = first.cursor("c", withhold=True)
        kept.execute("SELECT generate_series(1, 5)")
        other = second.cursor("c", scrollable=True)
        other.execute("SELECT generate_series(11, 15)")

        assert [kept.fetchone(), other.fetchone()] == [(1,), (11,)]
        first.commit()
        assert kept.fetchmany(2) == [(2,), (3,)]
        other.scroll(2)
        assert other.fetchone() == (14,)
        kept.close()
        other.close()


def test_a_pool_of_asyncpg_hands_out_clean_connections(sandbox: StagedSandbox) -> None:
    """A connection that goes back to its pool in a transaction, with settings and a listener, comes out as new."""

    async def use() -> None:
        async with asyncpg.create_pool(sandbox.url, min_size=1, max_size=1) as pool:
            async with pool.acquire() as connection:
                zone = await connection.fetchval("SHOW timezone")
                await connection.execute("SET timezone = 'Asia/Tokyo'")
                await connection.execute("INSERT INTO items (id) VALUES (7)")
                await connection.execute("BEGIN; INSERT INTO items (id) VALUES (8)")
            async with pool.acquire() as again:
                assert await again.fetchval("SHOW timezone") == zone
                assert await again.fetchval("SELECT count(*) FROM items") == 4

    asyncio.run(use())


def test_limits_of_time_do_not_end_the_shared_session(sandbox: StagedSandbox) -> None:
    """A client's limit on idle sessions, given at start-up, ends neither its own session nor anybody's."""
    options = "-c idle_in_transaction_session_timeout=100 -c idle_session_timeout=100 -c statement_timeout=1h"
    with psycopg2.connect(sandbox.url, options=options) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("100ms",)
        with connect(sandbox.behind) as other:  # the shared session is idle meanwhile
            other.query("SELECT pg_sleep(0.3)")
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("1h",)
    connection.close()

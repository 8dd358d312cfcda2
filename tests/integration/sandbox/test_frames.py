"""The end of a frame that nobody waits for: what it undoes, and on which side of it a statement falls."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ServerError

from .stage import StagedSandbox


@pytest.fixture
def client(sandbox: StagedSandbox) -> Iterator[Connection]:
    """A connection to the sandbox."""
    with connect(sandbox.address) as connection:
        yield connection


@contextmanager
def stopped(sandbox: StagedSandbox) -> Iterator[None]:
    """Have the sandbox's process do nothing in the block, as on a machine that has other things to do."""
    process = sandbox.handle._process.pid
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def say(client: Connection, sql: str) -> socket.socket:
    """Send *sql*, and return where the answer will come, for which nobody waits yet."""
    assert client._socket is not None
    client._socket.sendall(wire.query(sql))
    return client._socket


def names(client: Connection) -> list[str | None]:
    """Return the names of the items that no sandbox has begun with."""
    return [name for (name,) in client.query("SELECT name FROM items WHERE id >= 10 ORDER BY id")]


def test_it_is_undone_before_the_next_begins(sandbox: StagedSandbox, client: Connection) -> None:
    """A hundred frames, of each of which nothing is seen in the next."""
    for number in range(100):
        client.query(f"INSERT INTO items (id, name) VALUES ({number + 10}, 'x')")
        assert names(client) == ["x"]
        assert sandbox.handle.pop(waits=False).wrote is None
        sandbox.push("the next test")
    assert names(client) == []


def test_a_statement_after_it_is_in_the_next(sandbox: StagedSandbox, client: Connection) -> None:
    """Though the sandbox hears of all at once: of the end, of the next beginning and of the statement."""
    client.query("INSERT INTO items (id, name) VALUES (10, 'first')")
    with stopped(sandbox):
        sandbox.handle.pop(waits=False)
        sandbox.push("the next test")
        asked = say(client, "INSERT INTO items (id, name) VALUES (11, 'second')")
    select.select([asked], [], [])
    with connect(sandbox.address) as other:
        assert names(other) == ["second"]
        assert sandbox.pop().wrote
        assert names(other) == []


def test_a_statement_before_it_is_undone_with_it(sandbox: StagedSandbox, client: Connection) -> None:
    """Though its client has not waited for the answer, and the sandbox hears of both at once."""
    client.query("SELECT 1")
    with stopped(sandbox):
        asked = say(client, "INSERT INTO items (id, name) VALUES (10, 'stray')")
        sandbox.handle.pop(waits=False)
    select.select([asked], [], [])
    sandbox.push("the next test")
    with connect(sandbox.address) as other:
        assert names(other) == []


def test_many_statements_before_it_are_undone_with_it(sandbox: StagedSandbox, client: Connection) -> None:
    """All of them, though they are more than is read at once, and clients are served by turns."""
    said = [wire.query(f"INSERT INTO items (id, name) VALUES ({n}, '{n:<9000}')") for n in range(10, 60)]
    assert client._socket is not None
    client._socket.sendall(b"".join(said))
    sandbox.pop()
    sandbox.push("the next test")
    with connect(sandbox.address) as other:
        assert names(other) == []


def test_a_connection_that_was_closed_before_it_has_left_nothing(sandbox: StagedSandbox) -> None:
    """However shortly before: neither its transaction nor its temporary table is reported."""
    for sql in ("INSERT INTO items (id) VALUES (10)", "CREATE TEMP TABLE brief (id int); COMMIT") * 10:
        with closing(psycopg2.connect(sandbox.url)) as driver, driver.cursor() as cursor:
            cursor.execute(sql)
        report = sandbox.pop()
        sandbox.push("the next test")

        assert (report.clients_in_transaction, report.leftovers) == ((), ())


def test_it_is_waited_for_where_there_is_something_to_report(sandbox: StagedSandbox) -> None:
    """A connection in a transaction is reported as ever; then the sandbox is clean again."""
    with closing(psycopg2.connect(sandbox.url)) as driver, driver.cursor() as cursor:
        cursor.execute("INSERT INTO items (id) VALUES (10)")
        (left,) = sandbox.handle.pop(waits=False).clients_in_transaction
        assert "psycopg2" in left or "connection" in left

        sandbox.push("the next test")
        driver.rollback()
        assert sandbox.handle.pop(waits=False).wrote is None


def test_without_a_statement_nobody_is_asked(sandbox: StagedSandbox, client: Connection) -> None:
    """A thousand tests that do not use the database neither wait nor fill what lies between the processes."""
    client.query("SELECT 1")
    for _ in range(1_000):
        sandbox.handle.pop(waits=False)
        sandbox.push("the next test")
    client.query("INSERT INTO items (id, name) VALUES (10, 'last')")
    assert names(client) == ["last"]
    assert sandbox.pop().wrote


def test_a_constraint_ends_with_the_frame_that_made_it(sandbox: StagedSandbox, client: Connection) -> None:
    """It is not looked for after that, although inner frames have begun and ended since."""
    client.query("CREATE TABLE one (id int PRIMARY KEY)")
    client.query("CREATE TABLE two (id int REFERENCES one DEFERRABLE INITIALLY DEFERRED)")
    for number in range(2):
        sandbox.push("an inner frame")
        client.query(f"INSERT INTO items (id) VALUES ({number + 10})")
        sandbox.pop()
    sandbox.pop()
    sandbox.push("the next test")

    client.query("INSERT INTO items (id) VALUES (10)")

    assert names(client) == [None]


def test_a_temporary_table_of_a_wider_frame(sandbox: StagedSandbox, client: Connection) -> None:
    """It is its client's again where a frame undoes its end, and nobody's where the client has gone."""
    with connect(sandbox.address) as other:
        other.query("CREATE TEMP TABLE items AS SELECT 10 AS id, 'temporary' AS name")
        sandbox.push("an inner frame")
        other.query("DROP TABLE items")
        assert names(client) == []
        sandbox.pop()

        assert names(other) == ["temporary"]
        with pytest.raises(ServerError, match='temporary table "items" belongs to another connection'):
            names(client)
        sandbox.push("an inner frame")
    sandbox.pop()

    assert names(client) == []

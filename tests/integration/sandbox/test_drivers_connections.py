"""Connections to the sandbox: how many, who may, how they end, and where they lead when a test has its own database."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import asyncpg
import psycopg2
import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import cancel, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError

from .stage import PASSWORD, USER, Stage, StagedSandbox

_SECONDS = 20.0


@contextmanager
def logged_in(sandbox: StagedSandbox) -> Iterator[socket.socket]:
    """Give a socket whose log-in is done."""
    address = (sandbox.address.host, sandbox.address.port)
    with socket.create_connection(address, timeout=_SECONDS) as sock:
        sock.sendall(wire.startup({"user": USER, "database": sandbox.address.database}))
        sock.sendall(wire.message(b"p", PASSWORD.encode() + b"\0"))
        read_until(sock, wire.READY["I"])
        yield sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Return what comes up to *end*, or up to the end of the connection."""
    data = b""
    while not data.endswith(end) and (part := sock.recv(1 << 20)):
        data += part
    return data


def test_three_hundred_connections_work_side_by_side(sandbox: StagedSandbox) -> None:
    """More than the server would take, each with a statement of its own, and all in one transaction."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(sandbox.address)) for _ in range(300)]
        for number, connection in enumerate(connections, 100):
            connection.query(f"INSERT INTO items (id) VALUES ({number})")
        assert {connection.query("SELECT count(*) FROM items")[0] for connection in connections} == {("303",)}


@pytest.mark.parametrize(
    ("change", "sqlstate", "text"),
    [
        ({"password": "wrong"}, "28P01", 'password authentication failed for user "postgres"'),
        ({"user": "mallory"}, "28P01", 'password authentication failed for user "mallory"'),
        ({"database": "production"}, "3D000", 'database "production" does not exist'),
    ],
    ids=["password", "user", "database"],
)
def test_strangers_are_refused(sandbox: StagedSandbox, change: dict[str, str], sqlstate: str, text: str) -> None:
    """In the server's words, and the password is in none of them."""
    with pytest.raises((ServerError, ConnectError)) as caught:
        connect(replace(sandbox.address, **change))  # type: ignore[arg-type]  # text fields alone

    assert text in str(caught.value)
    assert PASSWORD not in str(caught.value).split()
    with pytest.raises(psycopg2.OperationalError, match=text):
        psycopg2.connect(replace(sandbox.address, **change).url())  # type: ignore[arg-type]  # text fields alone


def test_a_cancel_request_needs_the_key_of_its_connection(sandbox: StagedSandbox) -> None:
    """Neither a wrong key nor that of a connection that waits for nothing cancels what another one runs."""
    with connect(sandbox.address) as idle, connect(sandbox.address) as busy:
        busy.query("SELECT 1")
        cancel(sandbox.address, idle.pid, idle.key)
        cancel(sandbox.address, busy.pid, bytes(len(busy.key)))
        cancel(sandbox.address, busy.pid, busy.key)

        assert busy.query("SELECT pg_sleep(0.1), 2") == [("", "2")]
        assert idle.query("SELECT 1") == [("1",)]


def test_a_client_that_does_not_read_holds_nobody_up(sandbox: StagedSandbox) -> None:
    """Its large answer waits for it, and others are served meanwhile."""
    with logged_in(sandbox) as slow, connect(sandbox.address) as other:
        slow.sendall(wire.query("SELECT repeat('x', 20000000)"))

        assert other.query("SELECT 1") == [("1",)]
        assert len(read_until(slow, wire.READY["I"])) > 20_000_000


def test_a_client_that_sends_byte_by_byte_holds_nobody_up(sandbox: StagedSandbox) -> None:
    """What is not all there is not begun."""
    request = wire.query("SELECT 'late'")
    with logged_in(sandbox) as slow, connect(sandbox.address) as other:
        slow.sendall(request[:-3])
        assert other.query("SELECT 1") == [("1",)]
        slow.sendall(request[-3:])
        assert b"late" in read_until(slow, wire.READY["I"])


def test_a_client_that_goes_in_a_transaction_is_rolled_back(sandbox: StagedSandbox) -> None:
    """Whether its socket is closed or only its own direction of it."""
    with connect(sandbox.address) as other, logged_in(sandbox) as gone:
        gone.sendall(wire.query("BEGIN; INSERT INTO items (id) VALUES (10)"))
        read_until(gone, wire.READY["T"])
        gone.shutdown(socket.SHUT_WR)
        assert read_until(gone, b"never") == b""

        assert other.query("SELECT count(*) FROM items") == [("3",)]


def test_a_pool_moves_to_a_database_of_its_own_and_back(server: Stage, sandbox: StagedSandbox) -> None:
    """With what it has prepared and set; what is committed there is not in the sandbox."""

    async def main() -> None:
        connection = await asyncpg.connect(sandbox.url)
        await connection.execute("SET application_name = 'mover'")
        names = await connection.prepare("SELECT count(*) FROM items WHERE id >= $1")
        assert await names.fetchval(1) == 3
        with server.clone() as database, closing(psycopg2.connect(sandbox.url)) as sync:
            sandbox.handle.use_database(database)
            async with connection.transaction():
                await connection.execute("INSERT INTO items (id) VALUES (10)")
                with sync, sync.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM items")
                    assert cursor.fetchone() == (3,)
            assert await names.fetchval(1) == 4
            assert await connection.fetchval("SHOW application_name") == "mover"
            with connect(database) as behind:
                assert behind.query("SELECT count(*) FROM items") == [("4",)]
            report = sandbox.handle.use_database(None)
            assert report.wrote
            assert not report.clients_in_transaction
            assert await names.fetchval(1) == 3
        await connection.close()

    asyncio.run(main())


def test_a_listener_hears_in_a_database_of_its_own(server: Stage, sandbox: StagedSandbox) -> None:
    """Though it has said nothing since the test began, whatever its channel is called."""

    async def main() -> None:
        listener, other = await asyncpg.connect(sandbox.url), await asyncpg.connect(sandbox.url)
        heard: asyncio.Queue[object] = asyncio.Queue()
        await listener.add_listener('Né"ws', lambda *said: heard.put_nowait(said[2:]))
        with server.clone() as database:
            sandbox.handle.use_database(database)
            await other.execute("SELECT pg_notify($1, 'there')", 'Né"ws')
            assert await heard.get() == ('Né"ws', "there")
            report = sandbox.handle.use_database(None)
        assert report.leftovers == ()
        await other.execute("SELECT pg_notify($1, 'here')", 'Né"ws')
        assert await heard.get() == ('Né"ws', "here")
        await listener.close()
        await other.close()

    asyncio.run(main())


def test_a_transaction_left_open_in_its_own_database_is_lost(server: Stage, sandbox: StagedSandbox) -> None:
    """The report names it, and back in the sandbox it must be rolled back first."""
    with server.clone() as database, connect(sandbox.address) as client:
        sandbox.handle.use_database(database)
        client.query("BEGIN; INSERT INTO items (id) VALUES (10)")
        report = sandbox.handle.use_database(None, "the test with a database")
        assert len(report.clients_in_transaction) == 1
        with pytest.raises(ServerError, match="this transaction was undone when the test it was begun in ended"):
            client.query("SELECT 1")
        client.query("ROLLBACK")

        assert client.query("SELECT count(*) FROM items") == [("3",)]

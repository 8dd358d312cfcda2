"""Connections that cannot be made: one class of error for both drivers, and one answer to whether to try again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import Postgres, Workshop, accepts, free_port, postgres_binaries, run_python

_ATTEMPTS = """
import asyncio, json, os, sys
from sqlalchemy import text
from app.config import get_settings
from app.db import engines, get_async_session, get_sync_session, is_retryable, sqlstate

def in_sync():
    with get_sync_session() as session:
        session.execute(text("SELECT 1"))

async def in_async():
    async with get_async_session() as session:
        await session.execute(text("SELECT 1"))

def outcome(run):
    try:
        run()
    except Exception as error:
        kind = f"{type(error).__module__}.{type(error).__name__}"
        return [kind, is_retryable(error), sqlstate(error), str(error)]
    return ["connected", False, None, ""]

def attempt(url):
    os.environ["DATABASE_URL"] = url
    get_settings.cache_clear()
    engines._engines.clear()
    return [outcome(in_sync), outcome(lambda: asyncio.run(in_async()))]

print(json.dumps([attempt(url) for url in json.load(sys.stdin)]))
"""
PASSWORD = "s3cr3t-Zq"


def attempts(*urls: str, **variables: str) -> list[list[tuple[str, bool, str | None]]]:
    """Return for each URL class, ``is_retryable`` and ``sqlstate`` of what psycopg2 and asyncpg end with.

    No text has a password.
    """
    found = json.loads(run_python(_ATTEMPTS, variables, given=json.dumps(urls)))
    assert not any(PASSWORD in text for both in found for *_, text in both)
    return [[(kind, retryable, code) for kind, retryable, code, _ in both] for both in found]


def failed(*, retryable: bool, code: str | None = None) -> list[tuple[str, bool, str | None]]:
    """Return what both drivers are expected to end with; asyncpg alone tells the SQLSTATE."""
    return [("sqlalchemy.exc.OperationalError", retryable, each) for each in (None, code)]


def test_nobody_listens(tmp_path: Path) -> None:
    """A refused connection, at one host, at several, or at a socket that is not there, is worth another try."""
    port = free_port()
    places = (f"127.0.0.1:{port}/db", f"127.0.0.1:{port},localhost:{port}/db", f"/db?host={tmp_path}")

    assert attempts(*(f"postgresql://anna:{PASSWORD}@{place}" for place in places)) == [failed(retryable=True)] * 3


@pytest.fixture
def rude_port() -> Iterator[int]:
    """Give a port of loopback where each connection is closed at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:  # it is shut down
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_other_side_hangs_up(rude_port: int) -> None:
    """A connection that is reset while it is made is worth another try."""
    (found,) = attempts(f"postgresql://anna:{PASSWORD}@127.0.0.1:{rude_port}/db")

    assert [each[:2] for each in found] == [("sqlalchemy.exc.OperationalError", True)] * 2


def test_no_answer_in_time() -> None:
    """A server that accepts and says nothing is given up after DB_CONNECT_TIMEOUT, and worth another try."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://anna:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/db"

        assert attempts(url, DB_CONNECT_TIMEOUT="0.5") == [failed(retryable=True)]


@pytest.mark.needs("initdb", "openssl")
def test_a_server_that_starts(workshop: Workshop) -> None:
    """A server that does not take clients yet says so (57P03), and is worth another try."""
    data = workshop.directory / "data"
    binaries = postgres_binaries()
    workshop.run(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", as_server_user=True)
    # A standby that never hears of its primary, and takes no clients before that.
    (data / "standby.signal").touch()
    port = free_port()
    settings = ("listen_addresses=127.0.0.1", f"port={port}", "hot_standby=off", "unix_socket_directories=")
    arguments = [part for setting in settings for part in ("-c", setting)]
    workshop.start([binaries / "postgres", "-D", data, *arguments], ready=lambda: accepts(port), as_server_user=True)

    found = attempts(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres")

    assert found == [failed(retryable=True, code="57P03")]


@pytest.fixture
def anna(own_postgres: Postgres) -> Iterator[str]:
    """Give the log-in of a role, with its password."""
    own_postgres.execute(f"CREATE ROLE anna LOGIN PASSWORD '{PASSWORD}'")
    yield f"anna:{PASSWORD}"
    own_postgres.execute("DROP ROLE anna")


@pytest.mark.needs("initdb", "openssl")
def test_a_server_that_is_full(own_postgres: Postgres, anna: str) -> None:
    """A server without room for one more connection (53300) is worth another try."""
    own_postgres.execute("ALTER ROLE anna CONNECTION LIMIT 0")

    found = attempts(f"postgresql://{anna}@127.0.0.1:{own_postgres.port}/postgres")

    assert found == [failed(retryable=True, code="53300")]


@pytest.mark.needs("initdb", "openssl")
def test_a_server_that_refuses(own_postgres: Postgres, anna: str) -> None:
    """Where role, password, database or certificate is wrong, trying again is of no use."""
    directory = own_postgres.directory
    refused = {
        f"nobody:{PASSWORD}@127.0.0.1:{own_postgres.port}/postgres": "28P01",
        f"{anna}-wrong@127.0.0.1:{own_postgres.port}/postgres": "28P01",
        f"{anna}@127.0.0.1:{own_postgres.port}/nowhere": "3D000",
        f"{anna}@127.0.0.1:{own_postgres.port}/postgres?sslmode=verify-full&sslrootcert={directory}/ca.crt": None,
        f"{anna}@localhost:{own_postgres.port}/postgres?sslmode=verify-ca&sslrootcert={directory}/client.crt": None,
    }

    found = attempts(*(f"postgresql://{place}" for place in refused))

    assert found == [failed(retryable=False, code=code) for code in refused.values()]


_LOGGED = """
import asyncio, json, logging, os, sys, traceback
from sqlalchemy import text
from app.config import get_settings
from app.db import check_database, check_database_sync, engines, get_async_session, get_sync_session

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)

def in_sync():
    with get_sync_session() as session:
        session.execute(text("SELECT 1"))

async def in_async():
    async with get_async_session() as session:
        await session.execute(text("SELECT 1"))

for url in json.load(sys.stdin):
    os.environ["DATABASE_URL"] = url
    get_settings.cache_clear()
    engines._engines.clear()
    print(get_settings(), get_settings().url)
    for run in (
        in_sync,
        lambda: asyncio.run(in_async()),
        lambda: check_database_sync(timeout=20),
        lambda: asyncio.run(check_database(timeout=20)),
    ):
        try:
            run()
        except Exception:
            traceback.print_exc(file=sys.stdout)
        else:
            print("connected")
    print(engines.existing())
    engines.sync_engine().dispose()
"""


@pytest.mark.needs("initdb", "openssl")
def test_no_log_and_no_traceback_has_a_password(own_postgres: Postgres, anna: str) -> None:
    """With every logger at DEBUG, connections that work, are refused, or find nobody, show no password anywhere."""
    places = (f"{own_postgres.port}/postgres", f"{own_postgres.port}/nowhere", f"{free_port()}/postgres")

    shown = run_python(
        _LOGGED, {"DB_ECHO": "1"}, given=json.dumps([f"postgresql://{anna}@127.0.0.1:{place}" for place in places])
    )

    assert shown.splitlines().count("connected") == 4
    assert shown.count("Traceback") >= 8
    assert "DEBUG:asyncio:" in shown
    assert "INFO:sqlalchemy.engine.Engine:SELECT 1" in shown
    assert PASSWORD not in shown


_RESET = """
import asyncio, os, socket, struct, threading
from contextlib import suppress
from urllib.parse import urlsplit
from sqlalchemy import text
from app.db import get_async_session, get_sync_session, is_retryable

place = urlsplit(os.environ["DATABASE_URL"])
front = socket.create_server(("127.0.0.1", 0))
os.environ["DATABASE_URL"] = place._replace(
    netloc=f"{place.username}:{place.password}@127.0.0.1:{front.getsockname()[1]}").geturl()
clients = []

def copy(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

def relay():
    while True:
        try:
            client = front.accept()[0]
        except OSError:
            return
        server = socket.create_connection((place.hostname, place.port))
        clients.append((client, server))
        for pair in (client, server), (server, client):
            threading.Thread(target=copy, args=pair, daemon=True).start()

def reset():
    for client, server in clients:
        # No time to linger: the other side gets a reset, not an end.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)
        client.close()
        server.close()
    clients.clear()

threading.Thread(target=relay, daemon=True).start()

def in_sync():
    with get_sync_session() as session:
        session.execute(text("SELECT 1"))
        reset()
        session.execute(text("SELECT 2"))

async def in_async():
    async with get_async_session() as session:
        await session.execute(text("SELECT 1"))
        reset()
        await session.execute(text("SELECT 2"))

for run in (in_sync, lambda: asyncio.run(in_async())):
    try:
        run()
    except Exception as error:
        print(is_retryable(error), error.connection_invalidated)
front.shutdown(socket.SHUT_RDWR)
front.close()
"""


@pytest.mark.chatdify_db(isolation="database")
def test_a_reset_in_the_middle() -> None:
    """A connection that the network resets between two statements is a lost one, with both drivers."""
    assert run_python(_RESET).splitlines() == ["True True"] * 2

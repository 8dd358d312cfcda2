"""What goes wrong around the sandbox: clients that are slow, dead or many, and a server that is killed or full."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import Connection
from pytest_chatdify_db.postgres.connection import connect as connect_plainly
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.sandbox.__main__ import orders_from
from pytest_chatdify_db.sandbox.dialogue import packed
from pytest_chatdify_db.sandbox.handle import SandboxError, ServerGone
from pytest_chatdify_db.sandbox.spool import Spool

from .stage import TEMPLATE, Stage, StagedSandbox, running, started

_MB = 1 << 20
#: What psycopg2 says of a connection that has ended: the server's reason, if it was waiting when it came.
ENDED = r"server closed the connection|terminating connection"


@contextmanager
def raw(sandbox: StagedSandbox) -> Iterator[socket.socket]:
    """Give the socket of a client that has logged in."""
    with connect_plainly(sandbox.address).detach() as sock:
        sock.settimeout(30)
        yield sock


def count(sandbox: StagedSandbox) -> int:
    """Return how many items a new connection sees: three in the template."""
    with connect_plainly(sandbox.address) as connection:
        return int(connection.query("SELECT count(*) FROM items")[0][0] or 0)


@contextmanager
def own_database(server: Stage, sandbox: StagedSandbox) -> Iterator[None]:
    """Have clients work in a database of the test's own until the end of the block."""
    with server.clone() as address:
        sandbox.handle.use_database(address)
        try:
            yield
        finally:
            sandbox.handle.use_database(None)


def read_to_end(sock: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    answer = bytearray()
    while data := sock.recv(_MB):
        answer += data
    return bytes(answer)


def memory_of(process: int) -> int:
    """Return the most memory in bytes that a process has ever had."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def backend_of(sandbox: StagedSandbox) -> int:
    """Return the process of the session that the sandbox's clients share."""
    with connect_plainly(sandbox.address) as connection:
        return int(connection.query("SELECT pg_backend_pid()")[0][0] or 0)


@contextmanager
def small_disk(server: Stage) -> Iterator[str]:
    """Give the name of a tablespace on a disk of two megabytes."""
    disk = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        data = disk / "data"
        data.mkdir()
        disk.chmod(0o755)
        with connect_plainly(server.address) as administration:
            directory = administration.query("SHOW data_directory")[0][0] or ""
            owner = Path(directory).stat()
            os.chown(data, owner.st_uid, owner.st_gid)
            administration.query(f"CREATE TABLESPACE small LOCATION '{data}'")
            try:
                yield "small"
            finally:
                administration.query("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


# Clients -------------------------------------------------------------------------------------------------------------


def test_a_slow_client_holds_nobody_up(sandbox: StagedSandbox) -> None:
    """While one client does not read its big result, others work, and the sandbox keeps little of it in memory."""
    process = sandbox.handle._process.pid
    before = memory_of(process)
    with raw(sandbox) as slow:
        slow.sendall(wire.query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 120)"))

        assert count(sandbox) == 3

        slow.shutdown(socket.SHUT_WR)
        answer = read_to_end(slow)
    assert answer.count(b"x") >= 120_000_000
    assert answer.endswith(wire.READY["I"])
    assert memory_of(process) - before < 60 * _MB


@pytest.mark.parametrize("has_own_database", [False, True])
def test_a_big_copy_is_not_kept_in_memory(server: Stage, sandbox: StagedSandbox, *, has_own_database: bool) -> None:
    """Data of a COPY that is larger than the sandbox may grow arrives, in the test's own database too."""
    row = wire.message(b"d", b"x" * 65_535 + b"\n")
    process = sandbox.handle._process.pid
    with ExitStack() as stack:
        if has_own_database:
            sandbox.handle.use_database(stack.enter_context(server.clone()))
        before = memory_of(process)
        with connect_plainly(sandbox.address) as client:
            client.query("CREATE TABLE big (t text)")
            with client.detach() as sock:
                sock.sendall(wire.query("COPY big FROM STDIN"))
                for _ in range(1_500):
                    sock.sendall(row)
                sock.sendall(wire.COPY_DONE + wire.query("SELECT sum(length(t)) FROM big"))
                answer = b""
                while answer.count(wire.READY["I"]) < 2:
                    answer += sock.recv(_MB)
        assert b"COPY 1500\0" in answer
        assert str(1_500 * 65_535).encode() in answer
        assert memory_of(process) - before < 50 * _MB
        if has_own_database:
            sandbox.handle.use_database(None)


@pytest.mark.parametrize("has_own_database", [False, True])
@pytest.mark.parametrize("ends", [b"", wire.TERMINATE])
def test_a_client_that_closes_its_side_is_answered(
    server: Stage, sandbox: StagedSandbox, ends: bytes, *, has_own_database: bool
) -> None:
    """What was sent before a client closed its sending side is done and answered, as the server does."""
    with own_database(server, sandbox) if has_own_database else nullcontext():
        with raw(sandbox) as sock:
            sock.sendall(
                wire.query(b"SELECT pg_sleep(0.1)") + wire.query(b"INSERT INTO items (id) VALUES (10) RETURNING id")
            )
            sock.sendall(ends)
            sock.shutdown(socket.SHUT_WR)
            answer = read_to_end(sock)

        assert b"INSERT 0 1" in answer
        assert count(sandbox) == 4


def test_garbage_of_a_client_with_its_own_session(server: Stage, sandbox: StagedSandbox) -> None:
    """A message that is cut short is the server's to refuse, and hurts nobody else."""
    with own_database(server, sandbox), raw(sandbox) as sock:
        sock.sendall(wire.message(b"P", b"s") + wire.SYNC + wire.TERMINATE)

        assert b"invalid string in message" in read_to_end(sock)
        assert count(sandbox) == 3


@pytest.mark.parametrize("begin", ["", "BEGIN;"])
def test_a_statement_that_runs_on_when_its_own_database_goes(server: Stage, sandbox: StagedSandbox, begin: str) -> None:
    """Its client is told so and waits no longer."""
    with raw(sandbox) as sock:
        with own_database(server, sandbox):
            sock.sendall(wire.query(begin + "SELECT 1"))
            assert sock.recv(1)
            sock.sendall(wire.query("SELECT pg_sleep(100)"))
        answer = read_to_end(sock)

    assert b"the test that it worked for has ended" in answer


def test_a_client_that_leaves_at_once_is_obeyed(sandbox: StagedSandbox) -> None:
    """A statement that is followed by Terminate is executed, though others wait in front of it."""
    with raw(sandbox) as first, raw(sandbox) as second:
        first.sendall(wire.query(b"SELECT pg_sleep(0.1)"))
        second.sendall(wire.query(b"INSERT INTO items (id) VALUES (10)") + wire.message(b"X", b""))
        read_to_end(second)

        assert count(sandbox) == 4


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_dies_in_a_copy_leaves_nothing(sandbox: StagedSandbox, how: str) -> None:
    """A COPY whose client vanishes is undone, and so is the transaction around it."""
    with raw(sandbox) as sock:
        sock.sendall(wire.query(b"BEGIN") + wire.query(b"INSERT INTO items (id) VALUES (10)"))
        sock.sendall(wire.query(b"COPY items (id) FROM STDIN") + wire.message(b"d", b"11\n12\n"))
        answer = b""
        while b"G\0" not in answer:
            answer += sock.recv(1024)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert count(sandbox) == 3


def test_a_client_that_dies_in_the_middle_of_its_result(sandbox: StagedSandbox) -> None:
    """A client that resets its connection while it is sent a big result disturbs nobody."""
    with raw(sandbox) as sock:
        sock.sendall(wire.query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 20)"))
        sock.recv(1024)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert count(sandbox) == 3


def test_500_clients(sandbox: StagedSandbox) -> None:
    """Five hundred clients are connected, each in a transaction of its own, and one rollback undoes them all."""
    with ExitStack() as stack:
        clients: list[Connection] = [stack.enter_context(connect_plainly(sandbox.address)) for _ in range(500)]
        for number, client in enumerate(clients, 100):
            client.query(f"BEGIN; INSERT INTO items (id) VALUES ({number})")
        for client in clients:
            client.query("COMMIT")
        assert clients[0].query("SELECT count(*) FROM items") == [("503",)]

    sandbox.pop()
    assert count(sandbox) == 3


# The server ----------------------------------------------------------------------------------------------------------


def test_a_socket_that_does_not_block() -> None:
    """The sandbox's process waits for what it is to do, though a patched socket module has left it such a one."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs, ThreadPoolExecutor() as pool:
        waiting = pool.submit(orders_from, theirs)
        while not (theirs.getblocking() or waiting.done()):
            pass
        ours.sendall(packed({"server": "there"}))

        assert waiting.result() == {"server": "there"}


def test_a_killed_server_process() -> None:
    """After SIGKILL the server ends every session and recovers; the test is told, and the next one works."""
    with started() as stage, running(stage.address.with_database(TEMPLATE)) as sandbox:
        with connect_plainly(stage.address) as administration:
            administration.query("CHECKPOINT")  # the embedded server writes its log late
        sandbox.push("the test")
        backend = backend_of(sandbox)
        with closing(psycopg2.connect(sandbox.url)) as client, client.cursor() as cursor:
            cursor.execute("INSERT INTO items (id) VALUES (10)")
            os.kill(backend, signal.SIGKILL)
            with pytest.raises(psycopg2.OperationalError, match=ENDED):
                cursor.execute("SELECT pg_sleep(10)")

        report = sandbox.pop()
        assert (report.lost, report.has_escaped) == ("the server closed the connection without a word", False)

        sandbox.push("the next test")
        assert count(sandbox) == 3
        assert sandbox.pop().lost == ""


def test_a_statement_that_cannot_be_cancelled(sandbox: StagedSandbox) -> None:
    """The end of its test does not wait for ever: the session is ended, and the next test has another one."""
    with raw(sandbox) as sock:
        loop = "BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END"
        sock.sendall(wire.query(f"DO 'BEGIN LOOP {loop}; END LOOP; END'"))
        with pytest.raises(SandboxError, match="a statement could not be cancelled that ran on after its test: conn"):
            sandbox.pop()
        assert b"the test server has gone away" in read_to_end(sock)

    sandbox.push("the next test")
    assert count(sandbox) == 3
    assert sandbox.pop().lost == ""


def test_a_server_that_ends_idle_sessions() -> None:
    """Limits of its configuration do not end the shared session, though a client resets its own."""
    limits = ("idle_in_transaction_session_timeout", "idle_session_timeout")
    with started() as stage:
        with connect_plainly(stage.address) as administration:
            for name in limits:
                administration.query(f"ALTER ROLE postgres SET {name} = 100")
        with stage.sandbox() as sandbox, connect_plainly(sandbox.address) as client:
            for name in limits:
                client.query(f"RESET {name}")
                client.query(f"SET {name} TO DEFAULT")
            assert count(sandbox) == 3
            with connect_plainly(sandbox.behind) as other:
                other.query("SET idle_session_timeout = 0; SELECT pg_sleep(0.3)")
            assert count(sandbox) == 3


def test_a_stopped_server() -> None:
    """Without a server clients and the test run are told so, and nothing waits."""
    with started() as stage, running(stage.address.with_database(TEMPLATE)) as sandbox:
        sandbox.push("the test")
        client = connect_plainly(sandbox.address)
        status = Path(f"/proc/{backend_of(sandbox)}/status").read_text()
        os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGQUIT)

        with pytest.raises((ServerError, ConnectError), match="the test server has gone away"):
            client.query("SELECT pg_sleep(10)")
        with pytest.raises(ServerGone, match="and no new session can be had: "):
            sandbox.pop()
        with pytest.raises(ServerError, match="the test server has gone away"):
            connect_plainly(sandbox.address)


def test_a_killed_process_of_a_client_with_its_own_session(server: Stage, sandbox: StagedSandbox) -> None:
    """In a database of the test's own the client of the killed process gets an error, and the next test works."""
    with server.clone() as own:
        sandbox.handle.use_database(own)
        with closing(psycopg2.connect(sandbox.url)) as client, client.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone() or (0,)
            os.kill(backend, signal.SIGTERM)
            with pytest.raises(psycopg2.OperationalError, match=ENDED):
                cursor.execute("SELECT 1")
        sandbox.handle.use_database(None)

    sandbox.pop()
    sandbox.push("the next test")
    assert count(sandbox) == 3


@pytest.mark.needs("small-disk")
def test_a_full_disk(server: Stage, sandbox: StagedSandbox) -> None:
    """A statement that finds no room on the disk fails alone, with the server's own error, and its client works on."""
    with small_disk(server) as tablespace:
        with closing(psycopg2.connect(sandbox.url)) as client, client.cursor() as cursor:
            cursor.execute("INSERT INTO items (id) VALUES (10)")
            client.commit()
            with pytest.raises(psycopg2.errors.DiskFull, match="No space left on device"):
                cursor.execute(f"CREATE TABLE big TABLESPACE {tablespace} AS SELECT generate_series(1, 1000000)")
            client.rollback()
        assert count(sandbox) == 4

        sandbox.pop()
        assert count(sandbox) == 3


# What is kept aside --------------------------------------------------------------------------------------------------


def test_spool() -> None:
    """Bytes come out as they went in, in any portions."""
    spool = Spool()
    spool.put(b"abc")
    spool.put(bytearray(b"defg"))
    assert (len(spool), spool.head(5), spool.head(100)) == (7, b"abcde", b"abcdefg")

    spool.drop(5)
    spool.put(b"h")
    assert (len(spool), spool.head(100)) == (3, b"fgh")

    spool.drop(3)
    assert (len(spool), spool.head(100)) == (0, b"")
    assert not spool

    spool.put(b"x" * 1_500_000)
    assert [len(part) for part in spool.take()] == [1 << 20, 1_500_000 - (1 << 20)]
    assert not spool

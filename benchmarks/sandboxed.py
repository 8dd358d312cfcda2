"""A database, directly and through a sandbox, for measurements of single operations.

The sandbox's process is started here and not by the plugin, so that it can be profiled; it gets the same orders.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks import forwarder
from benchmarks.postgres import Stand
from pytest_chatdify_db import unix_socket
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.sandbox import dialogue
from pytest_chatdify_db.sandbox.flag import Flag

TABLES: Final = """
CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL, amount int NOT NULL);
INSERT INTO item (name, amount) SELECT 'item ' || n, n FROM generate_series(1, 50000) AS n;
ANALYZE item;
"""

#: In the name of a socket in a directory of its own.
_PORT: Final = 5432
_numbers: Final = count()
_ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """A database with the table ``item``, and a sandbox on it.

    Args:
        tcp: The database over TCP with a password, as an application connects.
        local: The database over a unix socket without a password, as nothing connects faster.
        sandbox: The sandbox, over its unix socket with a password, as engines in a test process connect.
        forwarded: The database over a unix socket to a process that only copies bytes to the server's.
        pid: The sandbox's process.
        control: The connection that tells the sandbox where tests end.
        notes: The one that tells it where they begin.
        is_clean: Raised while the end of a test has nothing to report.
    """

    tcp: Address
    local: Address
    sandbox: Address
    forwarded: Address
    pid: int
    control: socket.socket
    notes: socket.socket
    is_clean: Flag

    def push(self) -> None:
        """Begin a test, without waiting for the answer, as the plugin does."""
        _say(self.notes, {"do": "push", "name": "benchmark", "is_quiet": True}, next(_numbers))

    def pop(self) -> None:
        """End a test and undo what it wrote, without waiting where there is nothing to report, as the plugin does."""
        if self.is_clean.is_raised:
            _say(self.control, {"do": "pop", "is_quiet": True}, next(_numbers))
        else:
            _order(self.control, {"do": "pop"})


@contextmanager
def sandboxed(stand: Stand, *, profile: Path | None = None) -> Iterator[Sandboxed]:
    """Make the database and start the sandbox.

    Args:
        stand: The server.
        profile: Where to write a profile of the sandbox's process; default is not to take one.
    """
    with stand.database("benchmark_sandbox") as name:
        with connect(stand.local.with_database(name)) as connection:
            connection.query(TABLES)
        control, its_control = socket.socketpair()
        notes, its_notes = socket.socketpair()
        is_clean, its_is_clean = Flag.create()
        directory = Path(tempfile.mkdtemp())
        password = secrets.token_hex(8)
        with its_control, its_notes, unix_socket.bound(directory, _PORT) as (listener,):
            fds = (its_is_clean, its_control.fileno(), its_notes.fileno(), listener.fileno())
            process = _start(fds, profile)
            os.close(its_is_clean)
        try:
            identity = {"user": "benchmark", "password": password, "database": "app"}
            server = dataclasses.asdict(stand.local.with_database(name))
            _order(control, {"server": server, "identity": identity, "refuse_dirty_reads": False})
            sandbox = Address(str(directory), _PORT, "benchmark", password, "app")
            tcp, local = stand.tcp.with_database(name), stand.local.with_database(name)
            with _forwarded(local) as forwarded:
                yield Sandboxed(tcp, local, sandbox, forwarded, process.pid, control, notes, is_clean)
        finally:
            control.close()
            notes.close()
            process.wait()
            is_clean.close()
            shutil.rmtree(directory)


@contextmanager
def _forwarded(server: Address) -> Iterator[Address]:
    """Start the process that only copies bytes; give its address."""
    directory = Path(tempfile.mkdtemp())
    path = directory / f".s.PGSQL.{server.port}"
    command = [sys.executable, "-I", "-S", forwarder.__file__, str(path), f"{server.host}/{path.name}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield dataclasses.replace(server, host=str(directory))
        process.stdin.close()
    shutil.rmtree(directory)


def _start(fds: tuple[int, ...], profile: Path | None) -> subprocess.Popen[bytes]:
    main = f"main{fds}"
    if profile is not None:
        main = f"import cProfile; cProfile.run({main!r}, {str(profile)!r})"
    code = f"import sys; sys.path.append({str(_ROOT)!r}); from pytest_chatdify_db.sandbox.__main__ import main; {main}"
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], pass_fds=fds, start_new_session=True)


def _order(control: socket.socket, order: dialogue.Said) -> None:
    """Give an order and wait until it is obeyed; answers to what was only said before come first."""
    number = next(_numbers)
    _say(control, order, number)
    unpacker = dialogue.Unpacker()
    while part := control.recv(65536):
        for answer in unpacker.take(part):
            if "error" in answer:
                raise RuntimeError(str(answer["error"]))
            if answer.get("number", number) == number:
                return
    raise RuntimeError("the sandbox has ended")


def _say(control: socket.socket, order: dialogue.Said, number: int) -> None:
    control.sendall(dialogue.packed({**order, "number": number}))

"""The server that stands ready for every contestant that starts none: PostgreSQL on a TCP port, with SCRAM passwords.

It has the same programs and the same settings without durability as the server that chatdify-db starts, so that what is
compared is the tools and not two servers.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.postgres.quoting import quote_literal
from pytest_chatdify_db.servers import admin, binaries, cluster
from pytest_chatdify_db.servers.base import THROWAWAY
from pytest_chatdify_db.servers.binaries import Binaries, RunAs
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.supervision import Supervision

_PATIENCE: Final = 30.0
_LOG_IN: Final = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True, slots=True)
class Stand:
    """The running server.

    Args:
        version: Of PostgreSQL.
        tcp: Its maintenance database over TCP, with a password: how an application connects.
        local: The same over a unix socket, without a password.
    """

    version: str
    tcp: Address
    local: Address

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Make an empty database; give its name, and drop it afterwards."""
        with connect(self.local) as connection:
            admin.create_database(connection, name)
        yield name
        with connect(self.local) as connection:
            admin.drop_database(connection, name)


@contextmanager
def running() -> Iterator[Stand]:
    """Start the server; it is stopped, and its files are removed, at the end."""
    user = binaries.server_user()
    programs = next(found for found in binaries.installations() if user.can_reach(found.directory / "postgres"))
    run = Run.create()
    try:
        yield _start(run, programs, user)
    finally:
        run.close()


def _start(run: Run, programs: Binaries, user: RunAs) -> Stand:
    data, sockets = run.directory / "data", run.directory / "s"
    _make_room(run.directory, sockets, user)
    cluster.initialise(data, programs, user, lambda _line: None)
    log_in = run.directory / "pg_hba.conf"
    log_in.write_text(_LOG_IN)
    log_in.chmod(0o644)
    port = _free_port()
    settings = {
        **THROWAWAY,
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(sockets),
        "hba_file": str(log_in),
        "shared_buffers": "64MB",
        **({"io_method": "sync"} if programs.major >= 18 else {}),
    }
    argv = [str(programs.directory / "postgres"), "-D", str(data), *[f"--{k}={v}" for k, v in settings.items()]]
    log = run.directory / "server.log"
    with Supervision(
        run,
        {
            "command": {"argv": argv, "user": user.uid, "group": user.gid, "log": str(log)},
            "data": str(data),
            "container": None,
            "engine": "",
        },
        "server",
    ) as supervision:
        supervision.go()
        stand = _await(Address(str(sockets), port), log)
        supervision.keep()
    return stand


def _make_room(directory: Path, sockets: Path, user: RunAs) -> None:
    """Let the server's user pass through *directory* and write its socket."""
    sockets.mkdir(mode=0o755)
    if user.uid is not None:
        directory.chmod(0o711)
        os.chown(sockets, user.uid, -1)


def _await(local: Address, log: Path) -> Stand:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection = connect(local)
        except (ConnectError, ServerError):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.02)
            continue
        with connection:
            password = secrets.token_hex(8)
            connection.query(f"CREATE ROLE benchmark SUPERUSER LOGIN PASSWORD {quote_literal(password)}")
            version = connection.parameters["server_version"].split()[0]
        return Stand(version, replace(local, host="127.0.0.1", user="benchmark", password=password), local)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

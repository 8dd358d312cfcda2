"""The process of the sandbox: takes its sockets and its orders from the process that started it, and serves."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import ConnectError, ServerError
from pytest_chatdify_db.sandbox.core import Identity
from pytest_chatdify_db.sandbox.host import Host


def main(control_fd: int, notes_fd: int, listener_fd: int) -> int:
    """Serve clients on the socket *listener_fd* until the connection *control_fd* is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run, which tears down through this process
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        # Each client takes a socket, and maybe one to the server.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    control = socket.socket(fileno=control_fd)
    notes = socket.socket(fileno=notes_fd)
    listener = socket.socket(fileno=listener_fd)
    orders = _orders(control)
    try:
        host = Host(listener, control, notes, Address.from_fields(orders["server"]), Identity(**orders["identity"]))
        host.refuse_dirty_reads(orders["refuse_dirty_reads"])
    except (ConnectError, ServerError) as error:
        control.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        return 1
    host.run()
    return 0


def _orders(control: socket.socket) -> dict[str, Any]:
    """Read the first line; passwords come this way since others may read arguments and environments."""
    line = b""
    while not line.endswith(b"\n"):
        part = control.recv(65536)
        if not part:
            sys.exit(1)
        line += part
    orders: dict[str, Any] = json.loads(line)
    return orders


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

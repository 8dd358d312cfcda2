"""The process of the sandbox: takes its sockets and its orders from the process that started it, and serves."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from contextlib import suppress

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.sandbox.dialogue import Said, Unpacker, packed
from pytest_chatdify_db.sandbox.flag import Flag
from pytest_chatdify_db.sandbox.host import Host
from pytest_chatdify_db.sandbox.login import Identity


def main(flag_fd: int, control_fd: int, notes_fd: int, *listener_fds: int) -> int:
    """Serve clients on the sockets *listener_fds* until the connection *control_fd* is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run, which tears down through this process
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        # Each client takes a socket, and maybe one to the server.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    control = socket.socket(fileno=control_fd)
    notes = socket.socket(fileno=notes_fd)
    listeners = [socket.socket(fileno=fd) for fd in listener_fds]
    is_clean = Flag(flag_fd)
    os.close(flag_fd)
    orders = orders_from(control)
    try:
        server, identity = Address.from_fields(orders["server"]), Identity(**orders["identity"])
        host = Host(listeners, control, notes, is_clean, server, identity)
        host.refuse_dirty_reads(orders["refuse_dirty_reads"])
    except (ConnectError, ServerError) as error:
        control.sendall(packed({"error": str(error)}))
        return 1
    host.run()
    return 0


def orders_from(control: socket.socket) -> Said:
    """Read what comes first; passwords come this way since others may read arguments and environments."""
    control.setblocking(True)  # a test run whose sockets are patched, as eventlet's are, leaves it otherwise
    unpacker = Unpacker()
    while part := control.recv(65536):
        for orders in unpacker.take(part):
            return orders
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""The sandbox's unix socket, which engines of this process use in place of its TCP port: connects take two thirds.

The rule: settings, URLs and the environment name the port alone, as production's name a host. Only on the way from an
engine to its driver the one is exchanged for the other, and not where the connection is to be encrypted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from pytest_chatdify_db.postgres.address import Address

#: Drivers that take a directory for a host, as libpq does.
_DRIVERS: Final = frozenset({"psycopg2", "asyncpg", "psycopg", "psycopg_async"})
#: Arguments that speak of a network, or of encryption, which unix sockets have not.
_OF_NETWORKS: Final = frozenset({"hostaddr", "ssl", "sslmode", "dsn", "direct_tls"})


@contextmanager
def bound(directory: Path, port: int) -> Iterator[list[socket.socket]]:
    """Give a socket in *directory*, bound, where clients look for the server of *port*; none where there cannot be one.

    It is for its user alone, and closed in this process at the end of the block.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            remove(directory, port)  # of a process that was killed, and had the port before
            listener.bind(str(path_of(directory, port)))
            path_of(directory, port).chmod(0o600)
        except OSError:  # a path that is too long, or a file system that has no sockets
            yield []
        else:
            yield [listener]


def path_of(directory: Path, port: int) -> Path:
    """Return where clients look in *directory* for the server of *port*."""
    return directory / f".s.PGSQL.{port}"


def lead_engines(address: Address, directory: Path) -> Callable[[], None]:
    """Have all engines of this process that connect to *address* find it in *directory*; return what ends that."""
    from sqlalchemy import Engine, event

    is_there = path_of(directory, address.port).is_socket()

    def lead(dialect: Any, _record: object, _arguments: list[Any], options: dict[str, Any]) -> None:
        """Exchange the host, before listeners of a single engine that connect by themselves."""
        if (
            dialect.driver in _DRIVERS
            and (options.get("host"), options.get("port")) == (address.host, address.port)
            and _OF_NETWORKS.isdisjoint(options)
            and is_there
        ):
            options["host"] = str(directory)

    event.listen(Engine, "do_connect", lead)
    return partial(event.remove, Engine, "do_connect", lead)


def remove(directory: Path, port: int) -> None:
    """Remove the socket for *port*, if it is there."""
    with suppress(OSError):
        path_of(directory, port).unlink()

"""The environment of the run: every variable that names a PostgreSQL server names the sandbox, then all are put back.

The sandbox's port is reserved before the first conftest is imported and nobody listens on it until a test needs the
database. Until then a connection is refused at once: code under test reaches the sandbox or nothing, never the database
that the environment named before.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import MutableMapping

from pytest_chatdify_db.postgres.address import Address, InvalidAddress

HOST = "127.0.0.1"
DATABASE = "chatdify"

#: Names of settings of the application that may hold a second URL. Set only if they were set before.
_OTHER_URLS = ("DATABASE_REPLICA_URL",)

#: What libpq reads and would use beside, or instead of, the address.
_DROPPED = (
    "PGCHANNELBINDING",
    "PGGSSDELEGATION",
    "PGGSSLIB",
    "PGHOSTADDR",
    "PGKRBSRVNAME",
    "PGLOADBALANCEHOSTS",
    "PGMAXPROTOCOLVERSION",
    "PGMINPROTOCOLVERSION",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLCERT",
    "PGSSLCERTMODE",
    "PGSSLCOMPRESSION",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLKEY",
    "PGSSLMAXPROTOCOLVERSION",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLSNI",
    "PGTARGETSESSIONATTRS",
)


def variables(address: Address) -> dict[str, str | None]:
    """Return what each variable becomes for a sandbox at *address*; None for one that must not be set."""
    port, password = str(address.port), address.password or ""
    return {
        "DATABASE_URL": address.url(),
        "POSTGRES_USER": address.user,
        "POSTGRES_PASSWORD": password,
        "POSTGRES_DB": address.database,
        "DB_HOST": address.host,
        "DB_PORT": port,
        "PGHOST": address.host,
        "PGPORT": port,
        "PGUSER": address.user,
        "PGPASSWORD": password,
        "PGDATABASE": address.database,
        # The sandbox offers no encryption on the loopback interface; not to ask for it saves a round trip.
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
        **dict.fromkeys(_DROPPED),
    }


class Redirect:
    """The redirected environment, from `begin` to `end`.

    Attributes:
        address: Where the sandbox is, or will be.
        listener: The socket that reserves its port: bound, not listening.
    """

    __slots__ = ("_before", "_environ", "address", "listener")

    def __init__(self, address: Address, listener: socket.socket, environ: MutableMapping[str, str]) -> None:
        self.address = address
        self.listener = listener
        self._environ = environ
        self._before: dict[str, str | None] = {}

    @classmethod
    def begin(cls, *, user: str = "postgres", environ: MutableMapping[str, str] | None = None) -> Redirect:
        """Reserve a port of the loopback interface and point *environ* to it.

        Args:
            user: The role that clients of the sandbox log in as.
            environ: The environment; default ``os.environ``.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((HOST, 0))
        address = Address(HOST, listener.getsockname()[1], user, secrets.token_hex(16), DATABASE)
        redirect = cls(address, listener, os.environ if environ is None else environ)
        redirect._point()
        return redirect

    def _point(self) -> None:
        wanted = variables(self.address)
        wanted.update({name: self.address.url() for name in _OTHER_URLS if name in self._environ})
        for name, value in wanted.items():
            self._before[name] = self._environ.get(name)
            _set(self._environ, name, value)

    def changed(self) -> tuple[str, str] | None:
        """Return a variable that no longer names the sandbox, and how its value may be shown; None if all do."""
        url = self._environ.get("DATABASE_URL")
        if url == self.address.url():
            return None
        return "DATABASE_URL", _shown(url)

    def end(self) -> None:
        """Put every variable back to what it was, and give the port up. May be called twice."""
        while self._before:
            name, value = self._before.popitem()
            _set(self._environ, name, value)
        self.listener.close()


def _set(environ: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value is None:
        environ.pop(name, None)
    else:
        environ[name] = value


def _shown(url: str | None) -> str:
    if not url:
        return "nothing" if url is None else "an empty text"
    try:
        return str(Address.from_url(url))
    except InvalidAddress:
        return "something that is not the URL of a PostgreSQL server"

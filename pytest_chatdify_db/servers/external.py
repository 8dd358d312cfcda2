"""A PostgreSQL server that the user named by its URL: used as it is, checked before anything is created on it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address, InvalidAddress
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers.base import Progress, ProviderName, Server
from pytest_chatdify_db.servers.run import Run

MINIMUM_MAJOR = 14

_FACTS = """
    SELECT current_setting('server_version'), current_setting('server_version_num'), current_setting('fsync'),
           rolcreatedb OR rolsuper, pg_is_in_recovery()
    FROM pg_roles WHERE rolname = current_user
"""


@dataclass(frozen=True, slots=True)
class External:
    """The provider.

    Args:
        url: The server, a role that may create databases, and a database to connect to for that.
        reason: Why it was chosen.
    """

    url: str
    reason: str

    @property
    def name(self) -> ProviderName:
        """See `Provider.name`."""
        return "external"

    def start(self, run: Run, progress: Progress) -> Server:  # noqa: ARG002 - nothing to end with the run
        """See `Provider.start`."""
        begun = time.perf_counter()
        try:
            address = Address.from_url(self.url)
        except InvalidAddress as error:
            raise ServerUnavailable.bad_url(str(error)) from None
        progress(f"connecting to {address}")
        with _connect(address) as connection:
            version, fsync_off = _facts(connection)
        return Server(
            address=address,
            provider=self.name,
            reason=self.reason,
            version=version,
            is_managed=False,
            fsync_off=fsync_off,
            started_in=time.perf_counter() - begun,
        )


def _connect(address: Address) -> Connection:
    try:
        return connect(address)
    except ConnectError as error:
        if address.password is None and "asks for a password" in error.cause:
            raise ServerUnavailable.refused(str(address), address.user, error.cause) from None
        raise ServerUnavailable.unreachable(str(address), error.cause) from None
    except ServerError as error:
        raise ServerUnavailable.refused(str(address), address.user, str(error)) from None


def _facts(connection: Connection) -> tuple[str, bool]:
    """Return the version and whether fsync is off, or refuse a server that the plugin cannot use."""
    ((version, number, fsync, may_create, in_recovery),) = connection.query(_FACTS)
    place, user = str(connection.address), connection.address.user
    version = (version or "").split()[0]
    if int(number or 0) < MINIMUM_MAJOR * 10_000:
        raise ServerUnavailable.too_old(place, version, MINIMUM_MAJOR)
    if in_recovery == "t":
        raise ServerUnavailable.read_only(place)
    if may_create != "t":
        raise ServerUnavailable.no_createdb(place, user)
    return version, fsync == "off"

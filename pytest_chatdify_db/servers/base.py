"""What a server is to the rest of the plugin, and what a provider of one has to do: names and data, no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers.run import Run

#: Takes one line of news about a start that takes its time.
Progress = Callable[[str], None]

ProviderName = Literal["embedded", "container", "external"]

#: Settings of a server whose data nobody will miss: no write waits for a disk, no background job interferes.
THROWAWAY: Final[dict[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "autovacuum": "off",
    "jit": "off",
    "max_connections": "200",
    "max_locks_per_transaction": "256",  # a test's one transaction may create and drop a whole schema
    "max_wal_size": "1GB",
    "checkpoint_timeout": "1d",
    "TimeZone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Store:
    """Where the data of a server can be kept for later runs, once the template database is in it.

    Args:
        data: Its data directory, on this machine.
        entry: The archive to write.
        template: The fingerprint of the template that belongs into it.
    """

    data: str
    entry: str
    template: str


def _unknown() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which template database a server is going to need: it may come with it, if one was kept.

    Args:
        guess: The fingerprint of the one that the last run has needed; empty if that is not known.
        fingerprint: Returns the one that is needed, as soon as that is known; empty if none may be kept.
        stays: Whether a server that is started may go on after the run, with its templates.
    """

    guess: str = ""
    fingerprint: Callable[[], str] = _unknown
    stays: bool = False


#: None may be kept.
NO_WISH: Final = Wish()


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server that is ready.

    Args:
        address: A database for maintenance and a role that may create databases.
        provider: Where it comes from.
        reason: Why this provider was chosen, for the report's header.
        version: As the server says it, like ``18.4``.
        is_managed: Whether it ends with the run, and so everything on it vanishes.
        fsync_off: Whether it runs without durability, which makes copying files the fast way to clone.
        started_in: Seconds that the start took.
        store: Where its data can be kept; None if it cannot, or shall not.
    """

    address: Address
    provider: ProviderName
    reason: str
    version: str
    is_managed: bool
    fsync_off: bool
    started_in: float
    store: Store | None = None

    def to_json(self) -> str:
        """Return the server as text for the other processes of the run. It holds the password."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Server:
        """Return the server that `to_json` wrote."""
        data = json.loads(text)
        address = data.pop("address")
        options = tuple((name, value) for name, value in address.pop("options"))
        store = data.pop("store")
        return cls(address=Address(**address, options=options), store=store and Store(**store), **data)


class Provider(Protocol):
    """A way to get a server."""

    @property
    def name(self) -> ProviderName:
        """How it is called in options and reports."""

    def start(self, run: Run, progress: Progress) -> Server:
        """Return a server that is ready; what was started ends with *run*.

        Raises:
            ServerUnavailable: There is none to be had this way.
        """

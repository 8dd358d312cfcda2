"""A PostgreSQL server from programs on this machine: private, on a unix socket, without durability, in 0.1 s."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import binaries as programs
from pytest_chatdify_db.servers import cluster, program_copies
from pytest_chatdify_db.servers.base import NO_WISH, THROWAWAY, Progress, ProviderName, Server, Store, Wish
from pytest_chatdify_db.servers.binaries import Binaries, RunAs
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.settings import check_settings
from pytest_chatdify_db.servers.supervision import Supervision
from pytest_chatdify_db.servers.supervisor import Job

#: Seconds until a server that neither answers nor ends counts as failed.
_PATIENCE: Final = 30.0

_SOCKETS: Final = "s"
_LOG_TAIL: Final = 20


@dataclass(frozen=True, slots=True)
class Embedded:
    """The provider.

    Args:
        reason: Why it was chosen.
        template: The template database that is going to be needed.
    """

    reason: str
    template: Wish = NO_WISH

    @property
    def name(self) -> ProviderName:
        """See `Provider.name`."""
        return "embedded"

    def start(self, run: Run, progress: Progress) -> Server:
        """See `Provider.start`."""
        begun = time.perf_counter()
        user = programs.server_user()
        binaries = _usable(user)
        progress(f"starting {binaries}")
        expected = self.template.guess or self.template.fingerprint()

        def is_right() -> bool:
            return self.template.fingerprint() == expected

        choices = cluster.entries(binaries, user, expected)
        suspects: list[Path] = []
        while True:
            try:
                connection, data = _start(run, binaries, user, choices, progress, is_right)
                break
            except _CachedDataFailed as failure:
                choices.remove(failure.entry)
                suspects.append(failure.entry)
            except _WrongGuess:
                expected = self.template.fingerprint()
                choices = cluster.entries(binaries, user, expected)
        for entry in suspects:  # the server has started without them, so what failed is not of this machine or process
            with suppress(OSError):
                entry.unlink(missing_ok=True)
        kept = str(cluster.entries(binaries, user, expected)[0])
        with connection:
            check_settings(connection, settings(binaries.major, run))
            return Server(
                address=connection.address,
                provider=self.name,
                reason=f"{self.reason}; binaries of {binaries.origin}",
                version=connection.parameters["server_version"].split()[0],
                is_managed=True,
                fsync_off=True,
                started_in=time.perf_counter() - begun,
                store=Store(str(data), kept, expected) if expected else None,
            )


class _WrongGuess(Exception):
    """A server has started with another template database than the one that is needed."""


class _CachedDataFailed(Exception):
    """A server did not start on what was unpacked from this cache *entry*."""

    def __init__(self, entry: Path) -> None:
        super().__init__(entry)
        self.entry = entry


def settings(major: int, run: Run) -> dict[str, str]:
    """Return the settings of the server of *run* for the command line."""
    return {
        **THROWAWAY,
        "listen_addresses": "",
        "unix_socket_directories": str(run.directory / _SOCKETS),
        "cluster_name": f"chatdify-db-{run.id}",
        "shared_buffers": "64MB",
        # Log that no crash will need: its files are not kept for reuse, which would make each archive some MB larger.
        "min_wal_size": "2MB",
        "wal_recycle": "off",
        "wal_init_zero": "off",
        "dynamic_shared_memory_type": "mmap",  # in the data directory, and so removed with it even after kill -9
        **({"io_method": "sync"} if major >= 18 else {}),
    }


def _usable(user: RunAs) -> Binaries:
    """Return the best installation that *user* can run."""
    found = []
    for binaries in programs.installations():
        if binaries.major < programs.MINIMUM_MAJOR:
            found.append(f"{binaries.directory}: does not run, or is older than {programs.MINIMUM_MAJOR}")
        elif user.can_reach(binaries.directory / "postgres"):
            return binaries
        elif binaries.origin == programs.WHEEL and (copy := program_copies.reachable_copy(binaries, user)):
            return copy
        else:
            found.append(f"{binaries.directory}: out of reach for the user {user.name!r}, whom root runs servers as")
    raise ServerUnavailable.no_binaries(found, programs.places())


def _start(
    run: Run, binaries: Binaries, user: RunAs, choices: list[Path], progress: Progress, is_right: Callable[[], bool]
) -> tuple[Connection, Path]:
    """Start the server on one of *choices*, or on none of them; return a connection to it and its data directory.

    Raises:
        ServerUnavailable: It does not start.
        _WrongGuess: It was started for nothing, and removed.
        _CachedDataFailed: It does not start on files from the cache.
    """
    name = f"embedded-{token_hex(2)}"
    data, sockets, log = run.directory / name, run.directory / _SOCKETS, run.directory / f"{name}.log"
    _open_to(user, run.directory)
    sockets.mkdir(mode=0o700, exist_ok=True)
    if user.uid is not None:
        os.chown(sockets, user.uid, -1)
    arguments = [f"--{key}={value}" for key, value in settings(binaries.major, run).items()]
    command = [str(binaries.directory / "postgres"), "-D", str(data), *arguments]
    job: Job = {
        "command": {"argv": command, "user": user.uid, "group": user.gid, "log": str(log)},
        "data": str(data),
        "container": None,
        "engine": "",
    }
    entry: Path | None = None
    with Supervision(run, job, name) as supervision:
        # The supervisor starts while the files are unpacked.
        entry = cluster.prepare(data, binaries, user, progress, choices)
        supervision.go()
        try:
            connection = _await(supervision, Address(host=str(sockets)), data, log)
        except ServerUnavailable:
            if entry is not None:
                raise _CachedDataFailed(entry) from None
            raise
        if not is_right():
            connection.close()
            raise _WrongGuess
        supervision.keep()
    return connection, data


def _open_to(user: RunAs, directory: Path) -> None:
    """Let the server's user pass through the run's directory, and nobody else."""
    if user.gid is not None:
        os.chown(directory, -1, user.gid)
        directory.chmod(0o710)


def _await(supervision: Supervision, address: Address, data: Path, log: Path) -> Connection:
    deadline = time.monotonic() + _PATIENCE
    cause = "it did not get ready"
    while time.monotonic() < deadline:
        if _is_ready(data):
            try:
                return connect(address)
            except (ConnectError, ServerError) as error:
                cause = str(error)
        code = supervision.exit_code(within=0.002)
        if code is not None:
            raise ServerUnavailable.server_ended(code, _tail(log))
    raise ServerUnavailable.not_ready(_PATIENCE, cause, _tail(log))


def _is_ready(data: Path) -> bool:
    """Return whether the server says so in its pid file; asking it by a connection would make it fork each time."""
    try:
        return (data / "postmaster.pid").read_bytes().rstrip().endswith(b"ready")
    except OSError:
        return False


def _tail(log: Path) -> str:
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
    return ""

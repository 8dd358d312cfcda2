"""Data directories: made by ``initdb`` once, kept in the user's cache as an archive, unpacked for each run.

Unpacking into memory takes 50 ms, ``initdb`` ten times as long. An archive with the run's template database in it is
the first choice, one as ``initdb`` made it the second; where neither can be used, ``initdb`` runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers import archives
from pytest_chatdify_db.servers.base import Progress
from pytest_chatdify_db.servers.binaries import Binaries, RunAs

#: Raised when what lies in the cache changes its form.
_LAYOUT: Final = 5

_ALWAYS: Final = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--lc-messages=C", "--wal-segsize=1", "--no-sync")
#: Log that is recycled would be some MB of empty files; shared memory is where the data is, /dev/shm may be full.
_SETTINGS: Final = ("min_wal_size=2MB", "wal_recycle=off", "dynamic_shared_memory_type=mmap")
_MAPS: Final = ("global/*_fsm", "global/*_vm", "base/*/*_fsm", "base/*/*_vm")
_BUILTIN: Final = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def initdb_options(major: int) -> list[list[str]]:
    """Return the options for ``initdb``, the preferred first; the next ones are for a machine without that locale.

    Text sorts by code point everywhere, as in the Alpine image of PostgreSQL, whatever this machine's locale is.
    """
    provider = list(_BUILTIN) if major >= 17 else []
    settings = [word for setting in _SETTINGS for word in ("-c", setting)] if major >= 16 else []
    choices = [[*provider, "--locale=C.UTF-8"], [*provider, "--locale=C"]]
    return [[*_ALWAYS, *settings, *(["--no-data-checksums"] if major >= 18 else []), *choice] for choice in choices]


def entries(binaries: Binaries, user: RunAs, template: str = "") -> list[Path]:
    """Return where data directories of *binaries*, owned by *user*, are kept; the best first, ``initdb``'s last.

    Args:
        binaries: The programs that made them.
        user: Who owns the files.
        template: The fingerprint of a template database that one of them may hold; empty for none.
    """
    size = (binaries.directory / "postgres").stat().st_size
    facts = (_LAYOUT, binaries.version, size, initdb_options(binaries.major), user.uid)
    key = f"{'.'.join(map(str, binaries.version))}-{sha256(repr(facts).encode()).hexdigest()[:12]}"
    names = [f"{archives.TEMPLATES}{key}-{template}.tar"] if template else []
    return [archives.directory() / name for name in [*names, f"{archives.DATA}{key}.tar"]]


def prepare(
    data: Path, binaries: Binaries, user: RunAs, progress: Progress, choices: Sequence[Path] | None = None
) -> Path | None:
    """Make the data directory *data*; return the archive that it was unpacked from, or None if ``initdb`` made it.

    Args:
        data: The directory, which does not exist yet.
        binaries: The programs it is for.
        user: Who shall own it.
        progress: Takes lines of news.
        choices: The archives to try; default is that of ``initdb``'s work.

    Raises:
        ServerUnavailable: ``initdb`` fails.
    """
    choices = entries(binaries, user) if choices is None else choices
    for entry in choices:
        if archives.unpack(entry, data):
            return entry
    initialise(data, binaries, user, progress)
    if choices:
        archives.keep(data, choices[-1])
    return None


def initialise(data: Path, binaries: Binaries, user: RunAs, progress: Progress) -> None:
    """Make the data directory *data* by ``initdb``.

    Raises:
        ServerUnavailable: It fails.
    """
    progress(f"initialising a data directory for {binaries}, once")
    output = ""
    for options in initdb_options(binaries.major):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        if user.uid is not None:
            os.chown(data, user.uid, user.gid if user.gid is not None else -1)
        done = subprocess.run(  # noqa: S603 - programs that were found, options of ours
            [binaries.directory / "initdb", "-D", data, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=_environment(),
            **user.process_options(),
        )
        if done.returncode == 0:
            _drop_maps(data)
            return
        output = done.stdout
        if done.returncode < 0 or "caught signal" in output:
            break  # it was stopped, by Ctrl-C for one: other options are of no use
    raise ServerUnavailable.initdb_failed(str(binaries), output)


def _drop_maps(data: Path) -> None:
    """Remove the free space and visibility maps of the catalogs: a third of all files, copied with every database.

    A server may be without either: it makes one anew when it has something to write into it.
    """
    for pattern in _MAPS:
        for path in data.glob(pattern):
            path.unlink()


def _environment() -> dict[str, str]:
    """Return ours without what would change the outcome."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "TZ"))}

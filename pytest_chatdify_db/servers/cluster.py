"""Data directories: made by ``initdb`` once, kept in the user's cache, copied for each run.

A copy takes 30 ms in shared memory, ``initdb`` ten times as long. The cache can only make a start faster: where it
cannot be read, written or trusted, ``initdb`` runs instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Final

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers.binaries import Binaries, RunAs

#: Raised when what lies in the cache changes its form.
_LAYOUT: Final = 1

_ALWAYS: Final = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--lc-messages=C", "--wal-segsize=1", "--no-sync")
_BUILTIN: Final = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def cache_directory() -> Path:
    """Return the plugin's directory in the user's cache; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "chatdify-db"


def initdb_options(major: int) -> list[list[str]]:
    """Return the options for ``initdb``, the preferred first; the next ones are for a machine without that locale.

    Text sorts by code point everywhere, as in the Alpine image of PostgreSQL, whatever this machine's locale is.
    """
    provider = list(_BUILTIN) if major >= 17 else []
    choices = [[*provider, "--locale=C.UTF-8"], [*provider, "--locale=C"]]
    return [[*_ALWAYS, *(["--no-data-checksums"] if major >= 18 else []), *choice] for choice in choices]


def cache_key(binaries: Binaries, user: RunAs) -> str:
    """Return the name under which the data directory of *binaries*, owned by *user*, is kept."""
    size = (binaries.directory / "postgres").stat().st_size
    facts = (_LAYOUT, binaries.version, size, initdb_options(binaries.major), user.uid)
    return f"data-{'.'.join(map(str, binaries.version))}-{sha256(repr(facts).encode()).hexdigest()[:12]}"


def prepare(data: Path, binaries: Binaries, user: RunAs, progress: Callable[[str], None]) -> Path | None:
    """Make the data directory *data*, by copy if possible; return the cache entry it is a copy of, if it is one.

    Raises:
        ServerUnavailable: ``initdb`` fails.
    """
    entry = cache_directory() / cache_key(binaries, user)
    if _is_complete(entry) and _copy(entry, data):
        return entry
    initialise(data, binaries, user, progress)
    _keep(data, entry)
    return None


def initialise(data: Path, binaries: Binaries, user: RunAs, progress: Callable[[str], None]) -> None:
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
        done = subprocess.run(
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
            return
        output = done.stdout
    raise ServerUnavailable.initdb_failed(str(binaries), output)


def _environment() -> dict[str, str]:
    """Return ours without what would change the outcome."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "TZ"))}


def _is_complete(data: Path) -> bool:
    return (data / "PG_VERSION").is_file() and (data / "global" / "pg_control").is_file()


def _copy(source: Path, target: Path) -> bool:
    """Copy a directory tree with its owners and modes; `cp` is twice as fast as `shutil.copytree`."""
    done = subprocess.run(["cp", "-a", source, target], capture_output=True, check=False)
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
    return done.returncode == 0


def _keep(data: Path, entry: Path) -> None:
    """Put a copy of *data* into the cache, whole or not at all; two who do this at once do not disturb each other."""
    draft = entry.with_name(f".{entry.name}-{token_hex(4)}")
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        if _copy(data, draft):
            draft.rename(entry)
    shutil.rmtree(draft, ignore_errors=True)

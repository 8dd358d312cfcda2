"""Data directories: made by ``initdb`` once, kept in the user's cache as one archive, unpacked for each run.

Unpacking into memory takes 50 ms, ``initdb`` ten times as long. One file appears and disappears as a whole, and is read
faster than a thousand. The cache can only make a start faster: where it cannot be read or written, or turns out to be
broken, ``initdb`` runs instead.
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
_LAYOUT: Final = 2

_ALWAYS: Final = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--lc-messages=C", "--wal-segsize=1", "--no-sync")
_BUILTIN: Final = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def cache_directory() -> Path:
    """Return the plugin's directory in the user's cache; it need not exist."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "chatdify-db"


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
    return f"data-{'.'.join(map(str, binaries.version))}-{sha256(repr(facts).encode()).hexdigest()[:12]}.tar"


def prepare(data: Path, binaries: Binaries, user: RunAs, progress: Callable[[str], None]) -> Path | None:
    """Make the data directory *data*; return the cache entry that it was unpacked from, if it was.

    Raises:
        ServerUnavailable: ``initdb`` fails.
    """
    entry = cache_directory() / cache_key(binaries, user)
    if entry.is_file() and _unpack(entry, data):
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
            return
        output = done.stdout
    raise ServerUnavailable.initdb_failed(str(binaries), output)


def _environment() -> dict[str, str]:
    """Return ours without what would change the outcome."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "TZ"))}


def _unpack(entry: Path, data: Path) -> bool:
    """Unpack *entry* as *data*, with its owners and modes; return whether that worked."""
    data.mkdir(mode=0o700)
    if _tar("-C", data, "-xpf", entry) and (data / "PG_VERSION").is_file():
        return True
    shutil.rmtree(data, ignore_errors=True)
    return False


def _keep(data: Path, entry: Path) -> None:
    """Put *data* into the cache, whole or not at all; two who do this at once do not disturb each other."""
    draft = entry.with_name(f".{entry.name}-{token_hex(4)}")
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        if _tar("-C", data, "-cf", draft, "."):
            draft.rename(entry)
    with suppress(OSError):
        draft.unlink(missing_ok=True)


def _tar(*arguments: str | Path) -> bool:
    try:
        done = subprocess.run(["tar", *arguments], capture_output=True, check=False)  # noqa: S603, S607 - PATH's own
    except OSError:
        return False
    return done.returncode == 0

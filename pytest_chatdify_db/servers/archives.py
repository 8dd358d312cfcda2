"""Archives of data directories in the user's cache: one file each, there as a whole or not at all.

The cache can only make a start faster. What cannot be read, written, or trusted is done without, and nothing in it is
ever needed twice: whoever reads an archive that another run removes meanwhile reads it to its end. Each ends with its
checksum, for a file that is damaged would be a server with other data, which no other check need notice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from subprocess import DEVNULL
from typing import Final

from pytest_chatdify_db.servers.home import home

#: How many archives of template databases are kept, those used last, and how long one that nobody uses.
MOST: Final = 5
LONGEST: Final = 30 * 24 * 3600.0

TEMPLATES: Final = "template-"
DATA: Final = "data-"
VERSION: Final = "version-"
_LAST: Final = "last-"
_DRAFTS: Final = tuple(f".{kind}" for kind in (TEMPLATES, DATA, VERSION, _LAST))

#: Seconds after which a draft belongs to nobody: no archive takes that long to write.
DRAFT_AGE: Final = 3600.0

#: CRC-32 of whatever ends with its own CRC-32.
_WHOLE: Final = 0x2144DF1C

#: Bytes that are read at once: few enough to stay in the processor's cache, which halves the time.
_CHUNK: Final = 1 << 18

#: Of a server that runs: its pid file and what it shares with its processes. Both mean nothing to another server.
_OF_THE_PROCESS: Final = ("--exclude=./postmaster.*", "--exclude=./pg_dynshmem/*")


def directory() -> Path:
    """Return the plugin's directory in the user's cache; it need not exist, nor can it for a user without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home() / ".cache") / "chatdify-db"


def last_template(project: Path) -> str:
    """Return the fingerprint that `remember_template` was given last for *project*; empty if there is none."""
    return recall(_LAST, project)


def remember_template(project: Path, fingerprint: str) -> None:
    """Note that the tests of *project* need the template of this *fingerprint*."""
    remember(_LAST, project, fingerprint)


def recall(kind: str, subject: Path) -> str:
    """Return what `remember` was given last; empty if there is nothing."""
    try:
        return _memory(kind, subject).read_text()
    except (OSError, ValueError):
        return ""


def remember(kind: str, subject: Path, text: str) -> None:
    """Note the *text* about *subject*, for later runs."""
    memory = _memory(kind, subject)
    draft = memory.with_name(f".{memory.name}-{token_hex(4)}")
    with suppress(OSError):
        memory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(text)
        draft.rename(memory)
    with suppress(OSError):
        draft.unlink(missing_ok=True)


def _memory(kind: str, subject: Path) -> Path:
    return directory() / f"{kind}{sha256(os.fsencode(subject)).hexdigest()[:16]}"


def unpack(entry: Path, data: Path) -> bool:
    """Unpack *entry* as the directory *data*, with its owners and modes; return whether that worked."""
    if not entry.is_file():
        return False
    data.mkdir(mode=0o700)
    is_unpacked = _tar("-C", data, "-xpmf", entry, meanwhile=lambda: _checksum(entry) == _WHOLE)
    if is_unpacked and (data / "PG_VERSION").is_file():
        # The time of its last use, by which `collect` goes.
        with suppress(OSError):
            os.utime(entry)
        return True
    shutil.rmtree(data, ignore_errors=True)
    return False


def keep(data: Path, entry: Path) -> bool:
    """Put *data* into the cache as *entry* and return whether that worked; two at once do not disturb each other."""
    draft = entry.with_name(f".{entry.name}-{token_hex(4)}")
    kept = False
    with suppress(OSError):
        entry.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # What a project's seed stores is for its user's eyes only.
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if _tar("-C", data, *_OF_THE_PROCESS, "-cf", draft, "."):
            checksum = _checksum(draft).to_bytes(4, "little")
            with draft.open("ab") as file:
                file.write(checksum)
            draft.rename(entry)
            kept = True
    with suppress(OSError):
        draft.unlink(missing_ok=True)
    return kept


def collect(spared: Path) -> None:
    """Remove what was not used for long, and all but the templates that were used last; never *spared*."""
    with suppress(OSError):
        for path, age in ages(spared.parent, ".*"):
            if age > DRAFT_AGE and path.name.startswith(_DRAFTS):
                path.unlink(missing_ok=True)
        for kind in (DATA, _LAST, VERSION):
            for path, age in ages(spared.parent, f"{kind}*"):
                if age > LONGEST:
                    path.unlink(missing_ok=True)
        others = sorted(ages(spared.parent, f"{TEMPLATES}*"), key=lambda entry: entry[1])
        others = [(path, age) for path, age in others if path != spared]
        for rank, (path, age) in enumerate(others, start=1):
            if rank >= MOST or age > LONGEST:
                path.unlink(missing_ok=True)


def ages(where: Path, pattern: str) -> Iterator[tuple[Path, float]]:
    """Yield paths and the seconds since their last use; one to come was noted by a clock that was wrong, by as much."""
    now = time.time()
    for path in where.glob(pattern):
        # Another run may have removed it.
        with suppress(FileNotFoundError):
            yield path, abs(now - path.stat().st_mtime)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _tar(*arguments: str | Path, meanwhile: Callable[[], bool] = lambda: True) -> bool:
    """Run tar, and *meanwhile* beside it; return whether both went well."""
    command = ["tar", "--blocking-factor=64", *arguments]
    try:
        with subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process:  # noqa: S603 - PATH's own
            went_well = meanwhile()
    except OSError:
        return False
    return went_well and process.returncode == 0

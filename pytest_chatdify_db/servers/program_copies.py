"""Copies of the wheel's programs, for a server's user who cannot reach root's environment; once for each build.

The rule: a copy is there as a whole or not at all, and one that no server was started from for long is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from pytest_chatdify_db.servers import archives
from pytest_chatdify_db.servers.binaries import Binaries, RunAs

_PREFIX: Final = "programs-"


def reachable_copy(binaries: Binaries, user: RunAs) -> Binaries | None:
    """Return a copy of *binaries* that *user* can run, made where there is none; None if no place for it is found."""
    for cache in (
        archives.directory(),
        Path("/var/cache/chatdify-db"),
        Path(f"/var/tmp/chatdify-db-{os.getuid()}"),  # noqa: S108 - its owner is checked
    ):
        with suppress(OSError):
            copy = copy_in(cache, binaries, user)
            if copy is not None:
                return copy
    return None


def copy_in(cache: Path, binaries: Binaries, user: RunAs) -> Binaries | None:
    """Return the copy of *binaries* in *cache*, made where it is missing; None if *user* cannot run one there.

    Raises:
        OSError: It cannot be made.
    """
    install = binaries.directory.parent
    package = install.parent
    size = (binaries.directory / "postgres").stat().st_size
    home = cache / f"{_PREFIX}{'.'.join(map(str, binaries.version))}-{size}"
    if not cache.exists():
        cache.mkdir(parents=True)
        _open_to_all(cache)
    if cache.stat().st_uid != os.getuid() or not user.can_reach(home):
        return None
    try:
        os.utime(home)  # the time of its last use, by which `_collect` goes
    except FileNotFoundError:
        _make(home, install)
    _collect(cache)
    copy = Binaries(home / package.name / install.name / "bin", binaries.origin)
    return copy if user.can_reach(copy.directory / "postgres") and copy.major else None


def _make(home: Path, install: Path) -> None:
    """Copy *install* in its layout: its programs look for their libraries beside its package."""
    package = install.parent
    draft = home.with_name(f".{home.name}-{token_hex(4)}")
    try:
        no_sources = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(install, draft / package.name / install.name, symlinks=True, ignore=no_sources)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            _open_to_all(path)
        try:
            draft.rename(home)
        except OSError:
            if not home.exists():  # else another run was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open_to_all(path: Path) -> None:
    """Let everybody read, run and enter what its owner may, and nobody else write, whatever the umask is."""
    if not path.is_symlink():
        mode = stat.S_IMODE(path.stat().st_mode) & 0o700
        path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _collect(cache: Path) -> None:
    """Remove copies that were not used for long, and what is left of attempts at one."""
    for pattern, longest in ((f"{_PREFIX}*", archives.LONGEST), (f".{_PREFIX}*", archives.DRAFT_AGE)):
        for path, age in archives.ages(cache, pattern):
            if age > longest:
                shutil.rmtree(path, ignore_errors=True)

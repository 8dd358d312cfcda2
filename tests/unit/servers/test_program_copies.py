"""Copies of programs: made once, for everybody to run, and removed when nobody has used them for long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_chatdify_db.servers import archives
from pytest_chatdify_db.servers.binaries import Binaries, RunAs
from pytest_chatdify_db.servers.program_copies import copy_in


@pytest.fixture
def user() -> RunAs:
    """Return a user that the tests' directories are open to."""
    return RunAs(os.getuid(), os.getgid(), "somebody")


@pytest.fixture
def closed_umask() -> Iterator[None]:
    """Make files for their owner's eyes only."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def wheel(closed_umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Binaries:
    """Return programs in the layout of the wheel."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = tmp_path / "site" / "wheel" / "pginstall18" / "bin"
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (directory / name).write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) 18.4"\n')
        (directory / name).chmod(0o700)
    (tmp_path / "site" / "wheel.libs").mkdir()
    (tmp_path / "site" / "wheel.libs" / "libpq.so").write_text("a library")
    return Binaries(directory, "the wheel")


def test_layout(wheel: Binaries, user: RunAs, tmp_path: Path) -> None:
    """The programs find their libraries beside the package, and everybody may run them, whatever the umask is."""
    copy = copy_in(tmp_path / "copies", wheel, user)

    assert copy is not None
    assert copy.version == (18, 4)
    assert (copy.directory.parents[2] / "wheel.libs" / "libpq.so").read_text() == "a library"
    made = [tmp_path / "copies", *(tmp_path / "copies").rglob("*")]
    assert {path.name: oct(path.stat().st_mode & 0o005) for path in made if not path.stat().st_mode & 0o004} == {}
    assert (copy.directory / "postgres").stat().st_mode & 0o777 == 0o755


def test_made_once(wheel: Binaries, user: RunAs, tmp_path: Path) -> None:
    """A second call takes the copy that is there, and notes its use."""
    first = copy_in(tmp_path, wheel, user)
    assert first is not None
    home = first.directory.parents[2]
    (first.directory / "mark").write_text("of the first")
    os.utime(home, (0, 0))

    second = copy_in(tmp_path, wheel, user)

    assert second is not None
    assert (second.directory / "mark").exists()
    assert time.time() - home.stat().st_mtime < 3600


def test_old_ones_are_removed(wheel: Binaries, user: RunAs, tmp_path: Path) -> None:
    """Copies that nobody has used for long go, and attempts at one that were given up; others stay."""
    now = time.time()
    ages = {
        "programs-17.1-1": archives.LONGEST + 60,
        ".programs-17.2-1-abcd": archives.DRAFT_AGE + 60,
        "programs-17.3-1": 60,
        ".programs-17.4-1-abcd": 60,
        "another's": archives.LONGEST + 60,
    }
    for name, age in ages.items():
        (tmp_path / "copies" / name / "bin").mkdir(parents=True)
        os.utime(tmp_path / "copies" / name, (now - age, now - age))

    copy = copy_in(tmp_path / "copies", wheel, user)

    assert copy is not None
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == sorted(
        [copy.directory.parents[2].name, "programs-17.3-1", ".programs-17.4-1-abcd", "another's"]
    )


def test_out_of_reach(wheel: Binaries, tmp_path: Path) -> None:
    """Nothing is copied to where the user could not run it."""
    stranger = RunAs(os.getuid() + 1, os.getgid() + 1, "a stranger")
    (tmp_path / "closed").mkdir(mode=0o700)

    assert copy_in(tmp_path / "closed" / "copies", wheel, stranger) is None
    assert list((tmp_path / "closed" / "copies").iterdir()) == []

"""The cache of data directories: whole files, the newest of them, and never a reason to fail."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_chatdify_db.servers import archives

DAY = 24 * 3600.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of a server that runs."""
    path = tmp_path / "data"
    (path / "pg_dynshmem").mkdir(parents=True)
    for name in ("PG_VERSION", "postmaster.pid", "postmaster.opts", "pg_dynshmem/mmap.1"):
        (path / name).write_text(name)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a directory for archives."""
    path = tmp_path / "cache"
    path.mkdir()
    return path


def entry(cache: Path, name: str, age: float) -> Path:
    """Write an archive that was last used *age* seconds ago."""
    path = cache / name
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_is_kept_comes_back(data: Path, cache: Path, tmp_path: Path) -> None:
    """Files come back as they were, without those that belong to the process that ran."""
    assert archives.keep(data, cache / "one.tar")
    assert archives.unpack(cache / "one.tar", tmp_path / "copy")

    assert (tmp_path / "copy" / "PG_VERSION").read_text() == "PG_VERSION"
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["PG_VERSION", "pg_dynshmem"]
    assert [path.name for path in cache.iterdir()] == ["one.tar"]


def test_an_archive_is_private(data: Path, cache: Path) -> None:
    """It may hold the rows of a project's seed."""
    archives.keep(data, cache / "one.tar")

    assert (cache / "one.tar").stat().st_mode & 0o777 == 0o600


def test_nobody_else_writes_to_the_cache(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory and files are their user's to change, also under a umask that allows everything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    try:
        archives.remember(archives.VERSION, data, "18.4")
        archives.keep(data, archives.directory() / "one.tar")
    finally:
        os.umask(before)

    assert [path.name for path in archives.directory().rglob("*") if path.stat().st_mode & 0o022] == []
    assert archives.directory().stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_what_cannot_be_unpacked_leaves_nothing(cache: Path, tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or broken archive leaves the place free for another way."""
    if content is not None:
        (cache / "one.tar").write_bytes(content)

    assert not archives.unpack(cache / "one.tar", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("damage", ["a bit", "its end", "a part"])
def test_what_is_damaged_is_not_trusted(data: Path, cache: Path, tmp_path: Path, damage: str) -> None:
    """A row that has changed on the disk, an archive cut off behind a file, one that a crash left with a hole."""
    (data / "row").write_text("a row")
    assert archives.keep(data, cache / "one.tar")
    content = (cache / "one.tar").read_bytes()
    end = content.index(b"a row") + 512
    damaged = {
        "a bit": content.replace(b"a row", b"a rov"),
        "its end": content[: end - end % 512],
        "a part": content[:end] + bytes(len(content) - end),
    }
    (cache / "one.tar").write_bytes(damaged[damage])

    assert not archives.unpack(cache / "one.tar", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_cannot_be_kept_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    """Neither an archive nor a draft of it."""
    assert not archives.keep(tmp_path / "nothing", cache / "one.tar")
    assert not archives.keep(cache, cache / "data" / ("x" * 300))
    (cache / "data").rmdir()
    assert list(cache.iterdir()) == []


def test_without_tar(data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without the program nothing is kept, and nothing fails."""
    monkeypatch.setenv("PATH", "/nowhere")

    assert not archives.keep(data, cache / "one.tar")


def test_the_newest_stay(cache: Path) -> None:
    """Many templates of one day: those used last are kept; archives of another kind do not count."""
    made = [entry(cache, f"template-{number}.tar", age=number) for number in range(archives.MOST + 2)]
    base = entry(cache, "data-18.tar", age=29 * DAY)
    archives.collect(made[0])

    assert set(cache.iterdir()) == {base, *made[: archives.MOST]}


def test_the_old_go(cache: Path) -> None:
    """One that nobody has used for a month goes, unless it is the one in hand; so does one of initdb's work."""
    base = entry(cache, "data-17.tar", 31 * DAY)
    spared, old, recent = (
        entry(cache, f"template-{name}.tar", age) for name, age in [("a", 90 * DAY), ("b", 31 * DAY), ("c", 29 * DAY)]
    )
    archives.collect(spared)

    assert set(cache.iterdir()) == {spared, recent}
    assert not old.exists()
    assert not base.exists()


def test_a_clock_that_was_wrong(cache: Path) -> None:
    """A time to come does not make an archive the one that was used last: those of today stay, and what is in hand."""
    ages = {"a": 0, "b": -400 * DAY, "c": -9 * DAY, "d": -8 * DAY, "e": -7 * DAY, "f": -6 * DAY, "g": 3600}
    made = {name: entry(cache, f"template-{name}.tar", age) for name, age in ages.items()}
    archives.collect(made["a"])

    assert set(cache.iterdir()) == {made[name] for name in "adefg"}


@pytest.mark.parametrize("name", ["template-a.tar", "data-a.tar", "last-a", "version-a"])
def test_drafts_of_the_dead_go(cache: Path, name: str) -> None:
    """A draft is another run's for an hour, then nobody's."""
    young, old = entry(cache, f".{name}-1", age=60), entry(cache, f".{name}-2", age=2 * 3600)
    to_come, other = entry(cache, f".{name}-3", age=-2 * DAY), entry(cache, ".other", age=DAY)
    archives.collect(cache / "template-a.tar")

    assert set(cache.iterdir()) == {young, other}
    assert not old.exists()
    assert not to_come.exists()


@pytest.mark.parametrize(("value", "expected"), [("/x", "/x/chatdify-db"), ("relative", None), ("", None)])
def test_the_cache_directory(monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None) -> None:
    """XDG_CACHE_HOME counts if it is absolute, as its specification says."""
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/user")

    assert str(archives.directory()) == (expected or "/home/user/.cache/chatdify-db")


def test_a_user_without_a_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be kept, remembered or found, and nothing fails."""

    def nobody(_: object) -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.setattr(Path, "home", nobody.__get__(Path))
    entry = archives.directory() / "data-1.tar"
    (tmp_path / "PG_VERSION").write_text("18")
    archives.remember_template(tmp_path, "f1")

    assert archives.last_template(tmp_path) == ""
    assert not archives.keep(tmp_path, entry)
    assert not archives.unpack(entry, tmp_path / "data")
    archives.collect(entry)
    assert not archives.directory().exists()


def test_what_a_project_needed_last_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each project has its own; the last word counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = tmp_path / "one", tmp_path / "other"

    assert archives.last_template(one) == ""
    for fingerprint in ("f1", "f2"):
        archives.remember_template(one, fingerprint)

    assert archives.last_template(one) == "f2"
    assert archives.last_template(other) == ""
    assert [path.name[:5] for path in archives.directory().iterdir()] == ["last-"]


def test_a_cache_that_cannot_be_written_remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run has no guess, and that is all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archives.directory().write_text("in the way")

    archives.remember_template(tmp_path, "f1")

    assert archives.last_template(tmp_path) == ""

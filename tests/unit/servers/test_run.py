"""A run's directory and its lease: who may remove what, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_chatdify_db.errors import RunFailed
from pytest_chatdify_db.servers import run as run_module
from pytest_chatdify_db.servers.run import Run, collect_abandoned

IMPORTS = """
import os, sys
from pathlib import Path
import pytest_chatdify_db.servers.run as m
from pytest_chatdify_db.servers.run import *
"""
PACKAGE_ROOT = Path(run_module.__file__).parents[1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one directory in which runs are made and looked for."""
    path = tmp_path / "runs"
    monkeypatch.setattr(run_module, "_candidates", lambda: iter([path]))
    return path


@pytest.fixture
def run(root: Path) -> Iterator[Run]:
    """Return a run that is closed after the test."""
    made = Run.create()
    yield made
    made.close()


def other_process(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start Python code that has `Run`, *arguments* in ``sys.argv`` and an *environment* beside ours."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys, os\nfrom pathlib import Path\nfrom pytest_chatdify_db.servers.run import *\n{code}",
        ]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), **environment},
    )


def finished(code: str, *arguments: object) -> str:
    """Run Python code in another process to its end and return what it prints."""
    with other_process(code, *arguments) as process:
        return process.communicate()[0].strip()


LEAVE = "run = Run.create(Path(sys.argv[1])); print(run.directory, flush=True); os.kill(os.getpid(), 9)"
STAY = "run = Run.create(Path(sys.argv[1])); print(run.directory, flush=True); sys.stdin.readline()"
COLLECT = (
    "import pytest_chatdify_db.servers.run as m; m._candidates = lambda: iter([Path(sys.argv[1])]); "
    "print(collect_abandoned())"
)


def test_a_run_is_private(run: Run, root: Path) -> None:
    """Only its user can look into it, and its path leaves room for a socket's name."""
    assert run.directory.parent == root
    assert run.directory.stat().st_mode & 0o777 == 0o700
    assert run.id == run.directory.name
    assert len(run.id) == 8
    assert run.is_owner


def test_close_removes_everything(root: Path) -> None:
    """The owner leaves nothing; closing again is fine."""
    run = Run.create()
    (run.directory / "sub").mkdir()
    run.write("sub/file", "x")
    run.close()
    run.close()

    assert list(root.iterdir()) == []
    assert not run.is_owner


def test_attach_does_not_own(run: Run) -> None:
    """A worker's close removes nothing."""
    attached = Run.attach(run.directory)
    attached.close()

    assert attached.id == run.id
    assert not attached.is_owner
    assert run.directory.exists()


def test_attach_to_a_run_that_is_over(tmp_path: Path) -> None:
    """The error names the directory."""
    with pytest.raises(RunFailed, match="gone: the process that made it has ended"):
        Run.attach(tmp_path / "gone")


def test_a_forked_child_is_no_owner(run: Run) -> None:
    """A child that inherits the object cannot end the run of its parent."""
    child = os.fork()
    if not child:
        run.close()
        os._exit(0 if run.directory.exists() and not run.is_owner else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert finished(COLLECT, run.directory.parent) == "[]"


def test_written_files_are_private_and_whole(run: Run) -> None:
    """A file is replaced, not rewritten, and nobody else can read it."""
    run.write("secret", "one")
    path = run.write("secret", "two")

    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in run.directory.iterdir()) == ["lease", "owner", "secret"]


def test_a_claim_is_for_one(run: Run) -> None:
    """The first process that claims something has it, and no other one, nor the same one again."""
    assert run.claim("voice")
    assert not run.claim("voice")
    assert not Run.attach(run.directory).claim("voice")
    assert run.claim("another")


def test_a_lock_excludes_other_processes(run: Run) -> None:
    """While one process holds a lock, another waits for it; another lock is free."""
    code = (
        "run = Run.attach(sys.argv[1])\nwith run.lock(sys.argv[2]): print('got it', flush=True); sys.stdin.readline()"
    )
    with other_process(code, run.directory, "a") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "got it\n"
        with other_process(code, run.directory, "b") as second:
            assert second.communicate("\n")[0] == "got it\n"
        os.kill(first.pid, signal.SIGKILL)

    with run.lock("a"):
        assert (run.directory / "a.lock").exists()


def test_an_abandoned_run_is_collected(root: Path) -> None:
    """What a killed process left is removed by the next run, and only that."""
    abandoned = Path(finished(LEAVE, _made(root)))
    with other_process(STAY, root) as living:
        assert living.stdout is not None
        alive = Path(living.stdout.readline().strip())

        assert abandoned.exists()
        assert collect_abandoned() == [abandoned]
        assert not abandoned.exists()
        assert alive.exists()
        living.communicate("\n")


def _made(root: Path) -> Path:
    root.mkdir(mode=0o711, exist_ok=True)
    return root


def test_the_own_runs_are_never_collected(run: Run, root: Path) -> None:
    """A process can hold several runs (a test of a test run); looking for others' costs none of them its lease."""
    second = Run.create()

    assert collect_abandoned() == []
    assert finished(COLLECT, root) == "[]"
    second.close()


def test_a_directory_without_lease_is_not_ours_to_empty(root: Path) -> None:
    """What no run made stays, unless it is empty."""
    (_made(root) / "empty").mkdir()
    (root / "full").mkdir()
    (root / "full" / "file").touch()

    assert collect_abandoned() == []
    assert [path.name for path in root.iterdir()] == ["full"]


@pytest.mark.parametrize("kind", ["file", "link", "open"])
def test_a_root_that_others_could_write_to_is_refused(root: Path, tmp_path: Path, kind: str) -> None:
    """A directory prepared by somebody else is not used."""
    if kind == "file":
        root.touch()
    elif kind == "link":
        root.symlink_to(tmp_path)
    else:
        root.mkdir()
        root.chmod(0o777)

    with pytest.raises(RunFailed, match="is not a directory that you alone can write to"):
        Run.create()


def test_a_tmpdir_of_any_language_is_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a spelling in UTF-8 can be told to drivers."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/t\u00e4st \u65e5")

    assert Path("/t\u00e4st \u65e5", f"chatdify-db-{os.getuid()}") in run_module._candidates()


def test_what_is_written_needs_no_locale(run: Run) -> None:
    """The words of a server come back in another process, whatever encoding is the locale's."""
    code = "Run.attach(sys.argv[1]).write('note', '\\u00e4\\udcff')"
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with other_process(code, run.directory, **environment) as process:
        process.communicate()

    assert (run.directory / "note").read_bytes() == b"\xc3\xa4\xff"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_root_lets_a_servers_user_pass(root: Path, umask: int) -> None:
    """Where pytest runs as root the server runs as somebody else, below the root of runs, whatever the umask is."""
    before = os.umask(umask)
    try:
        Run.create().close()
    finally:
        os.umask(before)

    assert root.stat().st_mode & 0o777 == 0o711


def test_a_full_or_forbidden_candidate_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next place is taken where the first one cannot be used."""
    (tmp_path / "forbidden").touch()
    monkeypatch.setattr(run_module, "_candidates", lambda: iter([tmp_path / "forbidden", tmp_path / "good"]))
    run = Run.create()
    run.close()

    assert run.directory.parent == tmp_path / "good"


def test_little_space_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is nearly full is left to others."""
    monkeypatch.setattr(run_module, "_candidates", lambda: iter([tmp_path / "small", tmp_path / "last"]))
    monkeypatch.setattr(run_module, "_ENOUGH_BYTES", 1 << 62)
    run = Run.create()
    run.close()

    assert run.directory.parent == tmp_path / "last"


@pytest.mark.parametrize("directory", [b"/" + b"x" * 90, b"/one,two", b"/one:two", b"/\xff"])
def test_candidates_leave_room_for_a_socket(monkeypatch: pytest.MonkeyPatch, directory: bytes) -> None:
    """A TMPDIR is not used where no driver finds a socket: the address has 107 bytes, and is text without , and :."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: os.fsdecode(directory))

    names = [str(path) for path in run_module._candidates()]

    assert [name for name in names if not name.startswith("/dev/shm/")] == [f"/tmp/chatdify-db-{os.getuid()}"]

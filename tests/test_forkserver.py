"""A program that is forked is like one of a new interpreter, but for the imports that are done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import forkserver

if TYPE_CHECKING:
    from tests.conftest import Project

_TEST = """
import os, sys
import atexit, threading

def test_it():
    print(sys.argv[0], sys.path, os.getcwd(), __name__, os.environ["OWN"], os.environ.get("OTHER"))
    print(sorted(name for name in sys.modules if name.startswith(("tests", "app", "pytest_"))))
    print(sys.stdin.read(), sys.flags, sys.executable, sys.modules["__main__"].__file__)
    atexit.register(print, "at exit")
    threading.Thread(target=lambda: (threading.main_thread().join(), print("of a thread"))).start()
"""


def test_what_a_run_finds(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, paths, modules, variables and streams, and an end with everything that belongs to it."""
    project.write("test_it.py", _TEST)
    seen = []
    for from_nothing in (True, False):
        monkeypatch.setenv("OWN", str(from_nothing))
        monkeypatch.setenv("OTHER", "x") if from_nothing else monkeypatch.delenv("OTHER")
        result = project.run("-q", "-s", "-p", "no:cacheprovider", server=None, plugins="", from_nothing=from_nothing)
        result.assert_outcomes(passed=1)
        seen.append([line for line in result.outlines if " passed in " not in line])

    changed = [line.replace("True x", "False None") for line in seen[0]]
    assert changed == seen[1]
    assert seen[1][-2:] == ["of a thread", "at exit"]


def test_what_becomes_of_a_run(project: Project) -> None:
    """The exit code is pytest's, or that of the signal that has killed the process; the next run is not affected."""
    project.write("test_none.py", "")
    project.write("test_killed.py", f"import os\ndef test_it(): os.kill(os.getpid(), {int(signal.SIGKILL)})")
    project.write("test_exit.py", "import os\ndef test_it(): os._exit(77)")

    codes = [project.run(name).ret for name in ("test_none.py", "test_killed.py", "test_exit.py", "nothing.py")]

    assert codes == [pytest.ExitCode.NO_TESTS_COLLECTED, -signal.SIGKILL, 77, pytest.ExitCode.USAGE_ERROR]


def test_runs_have_nothing_in_common(project: Project) -> None:
    """What a run imports, sets and draws at random is its own."""
    project.write("planted.py", "value = 1")
    project.write(
        "test_it.py",
        """
        import os, random, sys
        import sqlalchemy

        def test_it():
            assert "planted" not in sys.modules and not hasattr(sqlalchemy, "planted") and "PLANTED" not in os.environ
            import planted
            sqlalchemy.planted = os.environ["PLANTED"] = "x"
            print("drawn:", random.random())
        """,
    )

    drawn = []
    for _ in range(2):
        result = project.run("-s", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=1)
        drawn += [line for line in result.outlines if "drawn:" in line]

    assert len(set(drawn)) == 2


def test_code(tmp_path: Path) -> None:
    """Code of the command line finds what it would find there, and its errors are shown."""
    arguments = ["-W", "error", "-c", "import sys, os; print(sys.argv, sys.path[:2], __name__, sys.stdin.read())", "x"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    usual = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        input="given",
        capture_output=True,
        text=True,
        check=False,
    )

    forked = forkserver.run(arguments, cwd=tmp_path, environment=environment, given="given")

    assert (forked.returncode, forked.stdout, forked.stderr) == (0, usual.stdout, usual.stderr)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import warnings; warnings.warn('of its own')", "UserWarning: of its own"),
        ("raise SystemExit('ended')", "ended"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ],
)
def test_code_that_fails(tmp_path: Path, code: str, error: str) -> None:
    """A warning is an error if that was asked for."""
    done = forkserver.run(["-W", "error", "-c", code], cwd=tmp_path, environment=os.environ)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == error


def test_a_program_that_hangs(tmp_path: Path) -> None:
    """It is killed, and the next one runs."""
    with pytest.raises(subprocess.TimeoutExpired):
        forkserver.run(["-c", "import signal; signal.pause()"], cwd=tmp_path, environment=os.environ, timeout=0.1)

    assert forkserver.run(["-c", "print('next')"], cwd=tmp_path, environment=os.environ).stdout == "next\n"

"""Many workers, dying workers, two runs at once, a killed controller, other plugins beside: no row is seen twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_chatdify_db.servers.run import collect_abandoned

if TYPE_CHECKING:
    from tests.conftest import Project

_XDIST = "pytest_asyncio.plugin xdist.plugin"

_SUITE = """
import pytest
from store import add, names

@pytest.fixture(scope="class")
def of_class():
    add("class")

@pytest.mark.parametrize("number", range(6))
def test_alone(number):
    assert names() == []
    add("same key")

@pytest.mark.parametrize("number", range(2))
@pytest.mark.chatdify_db(isolation="database")
def test_own(number):
    assert names() == []
    add("same key")

@pytest.mark.usefixtures("of_class")
class TestRows:
    @pytest.mark.parametrize("number", range(4))
    def test_shared(self, number):
        assert names() == ["class"]
        add("same key")

    @pytest.mark.parametrize("number", range(2))
    @pytest.mark.chatdify_db(isolation="database")
    def test_shared_and_own(self, number):
        assert names() == ["class"]
        add("same key")
"""


@pytest.fixture
def suite(project: Project) -> Project:
    """A project of two files of fourteen tests, which fail if they see each other's rows."""
    project.write_models()
    for name in ("test_one.py", "test_two.py"):
        project.write(name, _SUITE)
    return project


# As many workers as the two files, with a class in each, keep busy.
@pytest.mark.parametrize(("dist", "workers"), [("load", 4), ("loadfile", 2), ("loadscope", 2), ("worksteal", 2)])
def test_every_distribution(suite: Project, dist: str, workers: int) -> None:
    """Whatever order the tests come in, and on whichever worker."""
    suite.run(f"-n{workers}", f"--dist={dist}", plugins=_XDIST).assert_outcomes(passed=28)


def test_workers_that_crash(suite: Project) -> None:
    """A worker that ends in the middle of a test is replaced; the others notice nothing."""
    suite.write(
        "test_crash.py",
        """
        import os
        import pytest
        from store import add

        @pytest.mark.parametrize("number", range(2))
        def test_crash(number):
            add("lost")
            os._exit(1)
        """,
    )

    suite.run("-n2", plugins=_XDIST).assert_outcomes(passed=28, failed=2)


def test_an_early_end(suite: Project) -> None:
    """A run that stops at its first failure leaves nothing, and ``--lf`` runs that test again, alone."""
    suite.write("test_0.py", "from store import add\ndef test_fails():\n    add('x')\n    assert False")
    first = suite.run("-n2", "-x", plugins=_XDIST)
    second = suite.run("--lf", "-p", "cacheprovider", "test_0.py")

    assert first.ret != 0
    assert first.parseoutcomes()["failed"] >= 1
    second.assert_outcomes(failed=1)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "chatdify_db", "--chatdify-db-server=embedded", *arguments]


def test_two_runs_at_once(suite: Project) -> None:
    """They share the cache and nothing else."""
    runs = [
        subprocess.Popen(
            _command("-p", "xdist.plugin", "-n2"), cwd=suite.pytester.path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate()[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], outputs
    assert all("28 passed" in output for output in outputs)


def test_a_controller_that_is_killed(suite: Project) -> None:
    """With it go its workers, their server and all files; what is left of them, the next run takes away."""
    suite.write(
        "test_killed.py",
        """
        import os, signal, time
        from pathlib import Path
        from store import add

        def test_it(chatdify_db):
            add("x")
            Path("run").write_text(str(Path(chatdify_db.server.address.host).parent))
            os.kill(os.getppid(), signal.SIGKILL)
            while True:
                time.sleep(0.1)  # xdist interrupts it after five seconds
        """,
    )
    command = _command("-p", "xdist.plugin", "-n1", "test_killed.py")
    with subprocess.Popen(command, cwd=suite.pytester.path, stdout=subprocess.PIPE) as killed:
        killed.wait()
        directory = Path((suite.pytester.path / "run").read_text())
        suite.run("test_one.py").assert_outcomes(passed=14)
        collect_abandoned()
        killed.communicate()  # until the worker has closed it too

    assert killed.returncode == -signal.SIGKILL
    assert not directory.exists()
    assert [line for line in _command_lines() if str(directory) in line] == []


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(os.fsdecode(path.read_bytes().replace(b"\0", b" ")))
        except OSError:
            continue
    return found


_TIMEOUT = ("-p", "pytest_timeout", "--timeout=60")


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        pytest.param(("-p", "pytest_randomly"), 28, marks=pytest.mark.needs("pytest-randomly")),
        pytest.param(("-p", "pytest_repeat", "--count=2"), 56, marks=pytest.mark.needs("pytest-repeat")),
        pytest.param((*_TIMEOUT, "--timeout-method=signal"), 28, marks=pytest.mark.needs("pytest-timeout")),
        pytest.param((*_TIMEOUT, "--timeout-method=thread"), 28, marks=pytest.mark.needs("pytest-timeout")),
        pytest.param(("-p", "pytest_cov.plugin", "--cov=store"), 28, marks=pytest.mark.needs("pytest-cov")),
    ],
    ids=["randomly", "repeat", "timeout by signal", "timeout by thread", "cov"],
)
def test_beside_other_plugins(suite: Project, arguments: tuple[str, ...], passed: int) -> None:
    """Plugins that reorder, repeat, time or trace tests change nothing in what a test sees."""
    suite.run(*arguments).assert_outcomes(passed=passed)


@pytest.mark.needs("pytest-rerunfailures")
def test_a_test_that_is_run_again(suite: Project) -> None:
    """The second try sees none of the rows of the first."""
    suite.write(
        "test_flaky.py",
        """
        from store import add, names
        tries = []

        def test_flaky():
            assert names() == []
            add("x")
            tries.append(1)
            assert len(tries) == 2
        """,
    )

    result = suite.run("-p", "pytest_rerunfailures", "--reruns=1", "test_flaky.py")

    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


@pytest.mark.needs("pytest-timeout")
def test_a_test_that_is_timed_out(suite: Project) -> None:
    """A test that is stopped by a signal in the middle of a transaction leaves the next one its clean database."""
    suite.write(
        "test_0.py",
        """
        import threading
        import pytest
        from sqlalchemy import text
        from store import add, names

        @pytest.mark.timeout(1, func_only=True)
        def test_hangs(sync_session):
            add("x")
            sync_session.execute(text("INSERT INTO item (name) VALUES ('y')"))
            threading.Event().wait()

        def test_after():
            assert names() == []
        """,
    )

    result = suite.run("-p", "pytest_timeout", "--timeout-method=signal", "test_0.py")

    result.assert_outcomes(passed=1, failed=1)

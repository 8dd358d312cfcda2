"""Looking into the database of a test that failed: after the run, or while a debugger has stopped it."""

from __future__ import annotations

import fcntl
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Project

_FAILING = """
import pytest
from sqlalchemy import text
from models import Item
from store import add

def test_sandbox(sync_session):
    add("committed")
    sync_session.add(Item("only flushed"))
    sync_session.flush()
    raise AssertionError

@pytest.mark.chatdify_db(isolation="database")
def test_own():
    add("own")
    raise AssertionError

def test_passes():
    add("nobody asks")
"""


def commands(output: str) -> list[str]:
    """Return the commands that a run has printed to open databases."""
    return [line.strip() for line in output.splitlines() if "psql '" in line]


def items_by(command: str) -> list[str]:
    """Return the names of the items that somebody sees who pastes *command* into a shell."""
    query = ["--no-psqlrc", "-At", "-c", "SELECT name FROM item ORDER BY name"]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        [*shlex.split(command), *query], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    return done.stdout.splitlines()


@pytest.fixture
def forgetting() -> Iterator[list[str]]:
    """A list of outputs of runs; what the runs have kept is removed, and gone, at the end."""
    outputs: list[str] = []
    yield outputs
    for file in {match for output in outputs for match in re.findall(r"by: rm (\S+)", output)}:
        forget(Path(file))


def forget(file: Path) -> None:
    """Remove *file*, as a run tells its user to, and wait for the supervisors of the run."""
    with ExitStack() as stack:
        jobs = [stack.enter_context(job.open("r+b")) for job in file.parent.glob("*.job")]
        file.unlink(missing_ok=True)
        for job in jobs:
            fcntl.lockf(job, fcntl.LOCK_EX)


def test_kept_after_the_run(project: Project, forgetting: list[str]) -> None:
    """The printed commands open both databases when the run is over; when the file is removed all is gone."""
    project.write_models()
    project.write("test_it.py", _FAILING)

    result = project.run("--chatdify-db-keep=failed")
    forgetting.append(result.stdout.str())

    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "kept (the rows as they were when it failed, also the uncommitted); open it with:",
            "It is removed an hour after the run, or at once by: rm */kept",
            "kept (its own, as it was left); open it with:",
            "chatdify-db: 2 databases of failed tests kept; removed an hour after the run, or at once by: rm */kept",
        ]
    )
    sandbox, own = commands(result.stdout.str())
    assert items_by(sandbox) == ["committed", "only flushed"]
    assert items_by(own) == ["own"]

    kept = Path(re.findall(r"by: rm (\S+)", result.stdout.str())[-1])
    forget(kept)

    assert not kept.parent.exists()


def test_nothing_failed(project: Project) -> None:
    """A run whose tests pass keeps nothing and says nothing of it."""
    project.write_models()
    project.write("test_it.py", "from store import add\ndef test_it(): add('x')")

    result = project.run("--chatdify-db-keep=failed")

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*failed tests kept*")


def test_a_failure_after_the_rollback_keeps_nothing(project: Project) -> None:
    """What a wider fixture finds when the last test is over is no longer what that test has left."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest
        from store import add

        @pytest.fixture(scope="module")
        def checked():
            yield
            raise AssertionError

        def test_it(checked): add("x")
        """,
    )

    result = project.run("--chatdify-db-keep=failed")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.no_fnmatch_line("*failed tests kept*")


def test_bound(project: Project, forgetting: list[str]) -> None:
    """The first five are kept, of workers of xdist too; changes of the schema are said to be missing."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("number", range(6))
        def test_it(sync_session, number):
            sync_session.execute(text("CREATE TABLE made ()"))
            raise AssertionError
        """,
    )

    result = project.run("--chatdify-db-keep=failed", "-n1", plugins="xdist.plugin")
    forgetting.append(result.stdout.str())

    assert len(commands(result.stdout.str())) == 5
    result.stdout.fnmatch_lines(
        ["Changes of the schema are not in it: table made", "not kept: 5 are kept already", "*5 databases of failed *"]
    )


def test_on_a_server_that_outlives_the_run(project: Project) -> None:
    """There it has a name of its own, which is not dropped with the run's, and the password is in no command."""
    project.write_models()
    project.write("inner.py", _FAILING)
    project.write(
        "test_outer.py",
        """
        import subprocess, sys

        def test_inner_run(chatdify_db):
            from pytest_chatdify_db.servers import admin
            from pytest_chatdify_db.postgres.connection import connect
            url = chatdify_db.server.address.url()
            run = [sys.executable, "-m", "pytest", "-p", "chatdify_db", "inner.py", f"--chatdify-db-server={url}"]
            done = subprocess.run([*run, "--chatdify-db-keep=failed"], capture_output=True, text=True)
            assert '2 databases of failed tests kept; dropped by the first run that begins' in done.stdout
            with connect(chatdify_db.server.address) as connection:
                left = admin.databases(connection, "chatdify_db_failed_")
                assert sorted(left) == sorted(admin.comments(connection, "chatdify_db_failed_"))
            found = []
            for name in left:
                with connect(chatdify_db.server.address.with_database(name)) as connection:
                    found += sorted(row[0] for row in connection.query("SELECT name FROM item"))
            assert found == ["committed", "only flushed", "own"]
        """,
    )

    result = project.run("test_outer.py")

    result.assert_outcomes(passed=1)


def test_copy_that_fails(project: Project, forgetting: list[str]) -> None:
    """The test's report says why its database is not kept; the test's own error stays what it is about."""
    project.write_models()
    project.write(
        "conftest.py",
        """
        import pytest
        from pytest_chatdify_db import errors
        from pytest_chatdify_db.databases import copies

        @pytest.fixture(autouse=True, scope="session")
        def broken():
            def copy_rows(source, target):
                raise errors.CopyFailed.refused(str(target), "no space left on device")
            copies.copy_rows = copy_rows
        """,
    )
    project.write("test_it.py", "from store import add\ndef test_it(sync_session): raise AssertionError('the test')")

    result = project.run("--chatdify-db-keep=failed")
    forgetting.append(result.stdout.str())

    result.stdout.fnmatch_lines(
        ["E*AssertionError: the test", "chatdify-db could not copy the rows *", "Cause: no space left on device"]
    )
    assert commands(result.stdout.str()) == []


@pytest.mark.parametrize("isolation", ["transaction", "database"])
def test_debugger(project: Project, isolation: str) -> None:
    """With ``--pdb`` the printed command joins the test's transaction, or opens its own database."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        from models import Item
        from store import add

        def test_it(sync_session):
            add("committed")
            sync_session.add(Item("only flushed"))
            sync_session.flush()
            raise AssertionError
        """,
    )
    argv = [sys.executable, "-m", "pytest", "-p", "chatdify_db", "--chatdify-db-server=embedded", "--pdb"]

    process = project.pytester.popen([*argv, f"--chatdify-db-isolation={isolation}"], stdin=subprocess.PIPE)
    assert process.stdout is not None
    command = next(line.decode().strip() for line in process.stdout if b"psql '" in line)
    seen = items_by(command)
    output, _ = process.communicate(b"p os.environ\nc\n", timeout=60)

    assert seen == (["committed", "only flushed"] if isolation == "transaction" else ["committed"])
    assert "1 failed" in output.decode()
    assert "password" not in command


def test_breakpoint(project: Project) -> None:
    """A test without a database that stops in the debugger is told nothing."""
    project.write("test_it.py", "def test_it(): breakpoint()")

    result = project.pytester.run(sys.executable, "-m", "pytest", "-p", "chatdify_db", stdin=b"c\n")

    result.stdout.fnmatch_lines(["*1 passed*"])
    result.stdout.no_fnmatch_line("*psql*")

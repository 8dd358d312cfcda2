"""What users are told of a server, or a session on it, that ends while the tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


def test_a_failure_that_repeats_is_short(project: Project) -> None:
    """The first test that finds no server has the full text; the others say where it is."""
    project.write("test_it.py", "def test_one(chatdify_db): ...\ndef test_two(chatdify_db): ...\ndef test_pure(): ...")

    result = project.run(server="postgresql://127.0.0.1:1/postgres")

    result.assert_outcomes(errors=2, passed=1)
    assert result.stdout.str().count("To fix this") == 1
    result.stdout.fnmatch_lines(["(The report of test_it.py::test_one says why, and how to fix it.)"])


_ENDS = """
import os, signal, time
from pathlib import Path
from sqlalchemy import text

def backend(session):
    return session.scalar(text("SELECT pg_backend_pid()"))

def postmaster(session):
    status = Path(f"/proc/{backend(session)}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])

def end(pid, number, until_gone):
    os.kill(pid, number)
    while Path(f"/proc/{until_gone}").exists():  # else the next test may be the first to notice
        time.sleep(0.01)

"""


def test_a_session_that_the_server_ends(project: Project) -> None:
    """The test is told that its session ended, not that a procedure has committed; the next one works."""
    project.write_models()
    project.write(
        "test_it.py",
        _ENDS
        + """
def test_it(sync_session):
    end(backend(sync_session), signal.SIGTERM, until_gone=backend(sync_session))

def test_next(sync_session):
    assert backend(sync_session)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the server has ended its session while test_it.py::test_it was running; "
            "what the test wrote is gone.",
            "Cause: terminating connection due to administrator command",
            "*a test that ends sessions, such as by pg_terminate_backend, needs a database of its own: *",
        ]
    )


def test_a_server_that_ends(project: Project) -> None:
    """The tests are told that it is the server that has gone, with what it said."""
    project.write_models()
    project.write(
        "test_it.py",
        _ENDS
        + """
def test_it(sync_session):
    end(postmaster(sync_session), signal.SIGQUIT, until_gone=backend(sync_session))

def test_next(sync_session):
    assert backend(sync_session)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the PostgreSQL server of the tests has gone.",
            "Cause: *; and no new session can be had: *",
            "*run pytest again, which starts a server anew where the plugin does that; *",
        ]
    )

"""What a test leaves with pooled connections is told at that test, with the line that did it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

_TESTS = """
from sqlalchemy import text

from app.db import get_sync_session
from models import Item


def test_leaves_a_lock():
    with get_sync_session() as session:
        session.execute(text("SELECT pg_advisory_lock(4711)"))


def test_is_tidy():
    with get_sync_session() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(4711)"))
"""

_TEXT = [
    "*chatdify-db: test_it.py::test_leaves_a_lock has left something with connections that go back to their pool; in "
    "production the next one to use such a connection has it too.",
    "*  - advisory lock: connection *, by *test_it.py:*in test_leaves_a_lock*",
    "*    SELECT pg_advisory_lock(4711)",
    "*  - switch the check off: --chatdify-db-leaks=off",
]


@pytest.fixture
def tests(project: Project) -> Project:
    """Give a project with a test that leaves a lock and one that does not."""
    project.write_models()
    project.write("test_it.py", _TESTS)
    return project


def test_error(tests: Project) -> None:
    """With leaks=error the test that leaves it has an error, the next one none."""
    result = tests.run("--chatdify-db-leaks=error")

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(_TEXT)


def test_warning(tests: Project) -> None:
    """By default it is a warning."""
    result = tests.run("-W", "default")

    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(_TEXT)


def test_off(tests: Project) -> None:
    """Switched off nothing is said."""
    result = tests.run("--chatdify-db-leaks=off")

    result.assert_outcomes(passed=2)
    assert "has left" not in result.stdout.str()


_OWN = """
import pytest
from sqlalchemy import text

from app.db import get_sync_session

pytestmark = pytest.mark.chatdify_db(isolation="database")


def test_leaves_much():
    with get_sync_session() as session:
        session.execute(text("SELECT pg_advisory_lock(4711)"))
        session.execute(text("CREATE TEMPORARY TABLE scratch (x int)"))
        session.execute(text("LISTEN orders"))


def test_is_tidy():
    with get_sync_session() as session:
        session.execute(text("SELECT pg_advisory_lock(4711)"))
        session.execute(text("CREATE TEMPORARY TABLE scratch (x int) ON COMMIT DROP"))
        session.execute(text("LISTEN orders"))
        session.execute(text("SELECT pg_advisory_unlock(4711)"))
        session.execute(text("UNLISTEN orders"))
"""


def test_with_a_database_of_its_own(project: Project) -> None:
    """Sessions of PostgreSQL's own are asked what they keep, and it is told with the same words."""
    project.write_models()
    project.write("test_it.py", _OWN)

    result = project.run("--chatdify-db-leaks=error")

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*chatdify-db: test_it.py::test_leaves_much has left something with connections that go back to *",
            "*  - LISTEN orders: connection *, by *test_it.py:*in test_leaves_much*",
            "*    LISTEN orders",
            "*  - advisory lock: connection *, by *test_it.py:*in test_leaves_much*",
            "*    SELECT pg_advisory_lock(4711)",
            "*  - temporary table scratch: connection *, by *test_it.py:*in test_leaves_much*",
            "*    CREATE TEMPORARY TABLE scratch (x int)",
        ]
    )

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


_TAKEN = """
import pytest
from sqlalchemy import text

from app.db import async_engine, get_sync_session, sync_engine
from models import Item

pytestmark = pytest.mark.chatdify_db(isolation="{isolation}")
kept = []


def test_keeps_a_psycopg2_connection():
    connection = sync_engine.connect()
    connection.execute(text("SELECT 1"))
    connection.commit()
    kept.append(connection)


@pytest.mark.asyncio
async def test_keeps_an_asyncpg_connection(session):
    connection = await async_engine.connect()
    await connection.execute(text("SELECT 1"))
    await connection.commit()
    kept.append(connection)


@pytest.mark.asyncio
async def test_is_tidy(session):
    session.add(Item("one"))
    await session.commit()
    async with async_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    with get_sync_session() as other:
        other.add(Item("two"))
    sync_engine.connect().close()
"""


@pytest.mark.parametrize("isolation", ["transaction", "database"])
def test_connections_out_of_their_pools(project: Project, isolation: str) -> None:
    """A connection that a test does not give back is an error of that test, by either driver, and of no later one."""
    project.write_models()
    project.write("test_it.py", _TAKEN.replace("{isolation}", isolation))

    result = project.run("--chatdify-db-leaks=error")

    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*chatdify-db: test_it.py::test_keeps_a_psycopg2_connection has left 1 connection(s) out of the pool; *",
            "*  - connection *, taken by test at test_it.py:13 in test_keeps_a_psycopg2_connection",
            "*  - switch the check off: --chatdify-db-leaks=off",
            "*chatdify-db: test_it.py::test_keeps_an_asyncpg_connection has left 1 connection(s) out of the pool; *",
            "*  - connection *, taken by test at test_it.py:21 in test_keeps_an_asyncpg_connection",
        ]
    )


_NOT_THE_TESTS = """
from threading import Event, Thread

import pytest
import pytest_asyncio
from sqlalchemy import text

from app.db import async_engine, sync_engine
from models import Item

pytestmark = pytest.mark.chatdify_db(isolation="{isolation}")
kept = []


@pytest.fixture(scope="module")
def one_connection():
    with sync_engine.connect() as connection:
        yield connection


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def another():
    async with async_engine.connect() as connection:
        yield connection


@pytest.fixture
def narrow():
    with sync_engine.connect() as connection:
        yield connection


def test_wider_fixtures(one_connection, another, narrow): ...


def test_again(one_connection, another, narrow): ...


def test_a_thread_that_is_waited_for():
    taken, leave = Event(), Event()

    def work():
        with sync_engine.connect():
            taken.set()
            leave.wait()

    thread = Thread(target=work)
    thread.start()
    taken.wait()
    leave.set()
    thread.join()


def test_forgets_a_connection():
    sync_engine.connect()


def test_keeps_a_transaction():
    connection = sync_engine.connect()
    connection.execute(text("SELECT 1"))
    kept.append(connection)
"""


@pytest.mark.parametrize("isolation", ["transaction", "database"])
def test_connections_of_others(project: Project, isolation: str) -> None:
    """Fixtures' connections and those that came back are not spoken of; one in a transaction is told as that alone."""
    project.write_models()
    project.write("test_it.py", _NOT_THE_TESTS.replace("{isolation}", isolation))

    result = project.run("-W", "default")

    result.assert_outcomes(passed=5, warnings=1)
    result.stdout.fnmatch_lines(["*test_it.py::test_keeps_a_transaction has left 1 connection(s) in a transaction."])
    assert "out of the pool" not in result.stdout.str()

"""Tests that wait for a lock: the wait that cannot end is ended, any other is spoken of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_HEAD = """
import asyncio
import threading

import pytest
from sqlalchemy import text

from app.db import get_async_session, get_sync_session
from models import Item

OWN = pytest.mark.chatdify_db(isolation="database")


def ship():
    with get_sync_session() as session:
        session.execute(text("UPDATE item SET name = 'shipped'"))


def stored():
    with get_sync_session() as session:
        session.add(Item(name="new"))

"""


def write(project: Project, test: str) -> None:
    """Write the project with a test module."""
    project.write_models()
    project.write("test_it.py", _HEAD)
    with (project.pytester.path / "test_it.py").open("a") as file:
        file.write(test)


def test_both_drivers_on_the_event_loop(project: Project) -> None:
    """psycopg2 on the event loop's thread that waits for asyncpg's transaction ends as a deadlock, with both lines."""
    write(
        project,
        """
@OWN
@pytest.mark.asyncio
async def test_it():
    stored()
    async with get_async_session() as session:
        await session.execute(text("SELECT * FROM item FOR UPDATE"))
        ship()
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*psycopg2.errors.DeadlockDetected) deadlock detected: this statement waits for a lock that cannot be rel*",
            "E*DETAIL:  Waits: test (psycopg2, connection *): UPDATE item SET name = 'shipped'",
            "E*test_it.py:* in ship",
            "E*test_it.py:* in test_it",
            "E*Holds the lock: test (asyncpg, connection *), idle in transaction; its last statement: SELECT * FROM *",
            "E*test_it.py:* in test_it",
            "E*Both run in one thread, which cannot end the transaction that holds the lock while it waits for it.",
            "*- chatdify-db: a wait for a lock -*",
            "chatdify-db: in test_it.py::test_it a wait for a lock that could never end was ended.",
        ]
    )


def test_two_sync_sessions(project: Project) -> None:
    """Two sync sessions of one thread that lock each other out are found too, and the next test works."""
    write(
        project,
        """
@OWN
def test_it(sync_session):
    stored()
    sync_session.execute(text("DELETE FROM item"))
    with pytest.raises(Exception, match="Both run in one thread"):
        ship()


def test_next():
    stored()
    ship()
""",
    )

    project.run().assert_outcomes(passed=2)


def test_limited_wait(project: Project) -> None:
    """A test of the application's own lock timeout gets the timeout's error."""
    write(
        project,
        """
@OWN
def test_it(sync_session):
    stored()
    sync_session.execute(text("DELETE FROM item"))
    with pytest.raises(Exception, match="canceling statement due to lock timeout"):
        with get_sync_session() as session:
            session.execute(text("SET LOCAL lock_timeout = '800ms'"))
            session.execute(text("DELETE FROM item"))
""",
    )

    project.run().assert_outcomes(passed=1)


_OTHER_THREAD = """
@OWN
def test_it(sync_session):
    stored()
    sync_session.execute(text("DELETE FROM item"))
    shipper = threading.Thread(target=ship, name="shipper")
    shipper.start()
    shipper.join(1.6)
    sync_session.commit()
    shipper.join()
    assert False
"""

_REPORT = [
    "chatdify-db: in test_it.py::test_it a statement has waited for 1.* s for a lock (transactionid).",
    "Waits: thread shipper (psycopg2, connection *): UPDATE item SET name = 'shipped'",
    "  test_it.py:* in ship",
    "Holds the lock: sync_session (psycopg2, connection *), idle in transaction; its last statement: DELETE FROM item",
    "  test_it.py:* in test_it",
    "To fix this, either:",
    "  - end the transaction that holds the lock before the other statement runs",
    "  - limit the wait: SET LOCAL lock_timeout = '2s'",
]


def test_another_thread(project: Project) -> None:
    """A wait that may end is told on the terminal after a second, once, and again in the report of the failed test."""
    write(project, _OTHER_THREAD)

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stderr.fnmatch_lines(_REPORT)
    assert result.stderr.str().count("has waited for") == 1
    result.stdout.fnmatch_lines(["*- chatdify-db: a wait for a lock -*", *_REPORT])


def test_quiet(project: Project) -> None:
    """With -q the terminal is not told, the report is."""
    write(project, _OTHER_THREAD)

    result = project.run("-q")

    assert "has waited for" not in result.stderr.str()
    result.stdout.fnmatch_lines(_REPORT)


def test_session_beside_the_sandbox(project: Project) -> None:
    """A session that came to the server by another way is named when it holds the test's shared session up."""
    write(
        project,
        """
from pytest_chatdify_db.postgres.connection import connect


def test_it(chatdify_db, sync_session):
    stored()
    database = sync_session.execute(text("SELECT current_database()")).scalar_one()
    other = connect(chatdify_db.server.address.with_database(database), application_name="other")
    other.query("BEGIN")
    other.query("SELECT pg_advisory_xact_lock(4711)")
    threading.Timer(1.6, other.close).start()
    sync_session.execute(text("SELECT pg_advisory_lock(4711)"))
""",
    )

    result = project.run()

    result.stderr.fnmatch_lines(
        [
            "chatdify-db: in test_it.py::test_it a statement has waited for 1.* s for a lock (advisory).",
            "Waits: sync_session (psycopg2, connection *): SELECT pg_advisory_lock(4711)",
            "Holds the lock: a session that does not come through the sandbox (other), idle in transaction; its last "
            "statement: SELECT pg_advisory_xact_lock(4711)",
            "To fix this, either:",
            "  - end that session's transaction, or connect it with DATABASE_URL, so that it is part of the test",
        ]
    )


def test_client_that_sends_no_sync(project: Project) -> None:
    """A request that its client has begun and not ended is named as what holds the lock."""
    write(
        project,
        """
from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import connect


@OWN
def test_it(chatdify_db):
    stored()
    raw = connect(chatdify_db.address, application_name="raw").detach()
    parse = wire.message(b"P", b"\\0DELETE FROM item\\0\\0\\0")
    bind = wire.message(b"B", b"\\0\\0" + b"\\0\\0" * 3)
    raw.sendall(parse + bind + wire.message(b"E", b"\\0\\0\\0\\0\\0") + wire.message(b"H", b""))
    answer = b""
    while b"DELETE 1" not in answer:
        answer += raw.recv(1024)
    threading.Timer(1.6, raw.close).start()
    ship()
""",
    )

    result = project.run()

    result.stderr.fnmatch_lines(
        [
            "Waits: test (psycopg2, connection *): UPDATE item SET name = 'shipped'",
            "Holds the lock: connection * (raw), in the middle of a request that its client has not ended; its last "
            "statement: DELETE FROM item",
            "  - have that connection end its request: its driver has sent no Sync, or not all data of a COPY",
        ]
    )

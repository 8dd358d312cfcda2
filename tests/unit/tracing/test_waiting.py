"""What is said of a wait for a lock, and when it is taken for endless."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_chatdify_db.sandbox.waits import Wait
from pytest_chatdify_db.tracing.statements import Line, Statement
from pytest_chatdify_db.tracing.waiting import Side, explanation, is_endless, report

WAIT = Wait(7, 5, "idle in transaction", "web", "SELECT 1", "UPDATE items SET n = 2", "tuple", is_clients_turn=True)
HERE = Line("tests/test_it.py", 12, "test_it")
BLOCKED = Side(
    Statement("UPDATE items\n  SET n = %s", "psycopg2", actor="task ship", line=Line("tasks.py", 3, "ship"), thread=1),
    [Line("tasks.py", 3, "ship"), HERE],
    is_blocked=True,
)
IDLE = Side(Statement("SELECT * FROM items FOR UPDATE", "asyncpg", actor="request POST /", line=HERE, thread=1))


def test_endless() -> None:
    """A wait is endless if the thread that waits is the one that would have to end the idle transaction."""
    assert is_endless(WAIT, BLOCKED, IDLE)


@pytest.mark.parametrize(
    ("wait", "waiting", "holding"),
    [
        pytest.param(replace(WAIT, state="active"), BLOCKED, IDLE, id="the holder is at work"),
        pytest.param(replace(WAIT, has_limit=True), BLOCKED, IDLE, id="a timeout may end it"),
        pytest.param(WAIT, replace(BLOCKED, is_blocked=False), IDLE, id="the event loop goes on"),
        pytest.param(WAIT, BLOCKED, Side(Statement("SELECT 1", "asyncpg", thread=2)), id="another thread"),
        pytest.param(WAIT, BLOCKED, Side(), id="the holder is not known"),
        pytest.param(WAIT, Side(), IDLE, id="who waits is not known"),
    ],
)
def test_may_end(wait: Wait, waiting: Side, holding: Side) -> None:
    """Whatever may still end is not taken for endless."""
    assert not is_endless(wait, waiting, holding)


def test_explanation() -> None:
    """The explanation names both connections with who uses them, both statements and the lines of both."""
    assert explanation(WAIT, BLOCKED, IDLE).splitlines() == [
        "Waits: task ship (psycopg2, connection 7): UPDATE items SET n = %s",
        "  tasks.py:3 in ship",
        "  tests/test_it.py:12 in test_it",
        "Holds the lock: request POST / (asyncpg, connection 5), idle in transaction; its last statement: "
        "SELECT * FROM items FOR UPDATE",
        "  tests/test_it.py:12 in test_it",
        "Both run in one thread, which cannot end the transaction that holds the lock while it waits for it.",
    ]


def test_report_of_a_foreign_session() -> None:
    """Of a session that is not the tests' own, what the server knows is told."""
    wait = replace(WAIT, holder=None, name="psql", sql="LOCK TABLE items")

    assert report("test_it.py::test_it", wait, Side(), Side(), 1.04).splitlines() == [
        "chatdify-db: in test_it.py::test_it a statement has waited for 1.0 s for a lock (tuple).",
        "Waits: connection 7: UPDATE items SET n = 2",
        "Holds the lock: a session that does not come through the sandbox (psql), idle in transaction; its last "
        "statement: LOCK TABLE items",
        "To fix this, either:",
        "  - end that session's transaction, or connect it with DATABASE_URL, so that it is part of the test",
        "  - limit the wait: SET LOCAL lock_timeout = '2s'",
    ]


def test_report_of_a_client_without_sync() -> None:
    """A request that its client has not ended is called that."""
    text = report("t", replace(WAIT, state="active"), BLOCKED, Side(), 1.0)

    assert "connection 5 (web), in the middle of a request that its client has not ended; its last" in text
    assert "  - have that connection end its request: its driver has sent no Sync, or not all data of a COPY" in text


def test_report_of_another_thread() -> None:
    """Between threads the way out is the order of the two."""
    text = report("t", WAIT, BLOCKED, IDLE, 1.0)

    assert "  - end the transaction that holds the lock before the other statement runs" in text

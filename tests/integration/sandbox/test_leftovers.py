"""What a frame leaves with its connections is reported, and nothing that ended by itself or was there before."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres.connection import connect

from .stage import StagedSandbox


def left_by(sandbox: StagedSandbox, *statements: str) -> list[str]:
    """Return what is reported of a connection that has executed *statements* and stays connected."""
    with connect(sandbox.address) as client:
        for statement in statements:
            client.query(statement)
        return [each.what for each in sandbox.pop().leftovers]


@pytest.mark.parametrize(
    ("what", "statements"),
    [
        ("LISTEN orders", ["LISTEN orders"]),
        ("advisory lock", ["BEGIN; SELECT pg_advisory_lock(1); COMMIT"]),
        ("advisory lock", ["SELECT pg_advisory_lock(1), pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"]),
        ("temporary table names", ["CREATE TEMP TABLE names (id int)"]),
        ("temporary table My Names", ['CREATE TEMPORARY TABLE IF NOT EXISTS pg_temp."My Names" AS SELECT 1 AS id']),
    ],
)
def test_left(sandbox: StagedSandbox, what: str, statements: list[str]) -> None:
    """What stays with a session that goes back to its pool is named."""
    assert left_by(sandbox, *statements) == [what]


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["LISTEN orders", "UNLISTEN *"], id="unlisten"),
        pytest.param(["BEGIN", "LISTEN orders", "ROLLBACK"], id="listen rolled back"),
        pytest.param(["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"], id="unlock"),
        pytest.param(["SELECT pg_advisory_xact_lock(1)"], id="lock of a transaction"),
        pytest.param(["BEGIN; CREATE TEMP TABLE names (id int)", "ROLLBACK"], id="table rolled back"),
        pytest.param(["CREATE TEMP TABLE names (id int)", "DROP TABLE names"], id="table dropped"),
        pytest.param(["BEGIN; CREATE TEMP TABLE n (id int) ON COMMIT DROP", "COMMIT"], id="table of a transaction"),
        pytest.param(["SELECT 1"], id="an idle connection"),
    ],
)
def test_not_left(sandbox: StagedSandbox, statements: list[str]) -> None:
    """What has ended is no leftover."""
    assert left_by(sandbox, *statements) == []


def test_from_before_and_gone(sandbox: StagedSandbox) -> None:
    """A listener from an outer frame is not the inner one's, and a connection that is closed leaves nothing."""
    with connect(sandbox.address) as listener:
        listener.query("LISTEN orders")
        sandbox.push("inner")
        with connect(sandbox.address) as client:
            client.query("SELECT pg_advisory_lock(1)")
            client.query("CREATE TEMP TABLE names (id int)")
        assert listener.query("SELECT 1") == [("1",)]

        assert sandbox.pop().leftovers == ()
        assert [each.what for each in sandbox.pop().leftovers] == ["LISTEN orders"]


def test_a_lock_of_an_outer_frame_outlives_the_inner_ones(sandbox: StagedSandbox) -> None:
    """No inner frame is said to have left it; the one that took it releases it."""
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with connect(sandbox.address) as client:
        sandbox.push("outer")
        client.query("SELECT pg_advisory_lock(1)")
        sandbox.push("inner")
        client.query("INSERT INTO items (id) VALUES (9)")

        assert sandbox.pop().leftovers == ()
        assert client.query(held) == [("1",)]
        assert [each.what for each in sandbox.pop().leftovers] == ["advisory lock"]
        assert client.query(held) == [("0",)]

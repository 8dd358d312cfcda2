"""The stage itself: a sandbox that clients can use, and a frame that undoes what they did."""

from __future__ import annotations

from pytest_chatdify_db.postgres.connection import connect

from .stage import StagedSandbox


def test_a_frame_is_undone(sandbox: StagedSandbox) -> None:
    """What a client commits in the sandbox is gone after the frame, and was never in the database behind it."""
    with connect(sandbox.address) as client:
        client.query("INSERT INTO items (id, name) VALUES (10, 'ten')")
        assert client.query("SELECT count(*) FROM items") == [("4",)]

        assert sandbox.pop().wrote
        assert client.query("SELECT count(*) FROM items") == [("3",)]

    with connect(sandbox.behind) as direct:
        assert direct.query("SELECT count(*) FROM items") == [("3",)]

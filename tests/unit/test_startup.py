"""A start on a thread: the server when it is there, its error where it is asked for, and an end if nobody asks."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers.base import Server, Wish
from pytest_chatdify_db.startup import Abandoned, ServerStart

SERVER = cast("Server", object())


def test_the_server_is_returned_once_the_need_is_settled() -> None:
    """The start learns which template is needed when that is known."""
    asked: list[str] = []

    def start(wish: Wish) -> Server:
        asked.extend([wish.guess, wish.fingerprint()])
        return SERVER

    begun = ServerStart(start, "of the last run")
    begun.settle("of this one")

    assert begun.result() is SERVER
    assert asked == ["of the last run", "of this one"]


def test_an_error_is_raised_where_the_server_is_asked_for() -> None:
    """The thread dies silently."""

    def start(wish: Wish) -> Server:
        raise ServerUnavailable("none")

    begun = ServerStart(start, "")

    with pytest.raises(ServerUnavailable, match="none"):
        begun.result()


def test_a_start_that_nobody_needs_ends() -> None:
    """What waits for the need to be settled is ended by an error, so that it removes what it has started."""
    ended = threading.Event()

    def start(wish: Wish) -> Server:
        try:
            wish.fingerprint()
        finally:
            ended.set()
        return SERVER

    begun = ServerStart(start, "")
    begun.abandon()

    assert ended.is_set()
    with pytest.raises(Abandoned):
        begun.result()

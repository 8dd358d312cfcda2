"""A start on a thread: the server when it is there, its error where it is asked for, and an end if nobody asks."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from pytest_chatdify_db.errors import ServerUnavailable, TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers.base import Server, Wish
from pytest_chatdify_db.startup import Abandoned, Copied, ServerStart

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


def test_the_database_is_made_ahead() -> None:
    """What copies the template runs after the start, and gets the server and what the need was settled to."""
    asked: list[tuple[Server, str]] = []
    copied = Copied("template", Address("host", database="copy"))

    def copy(server: Server, fingerprint: str) -> Copied:
        asked.append((server, fingerprint))
        return copied

    begun = ServerStart(lambda _: SERVER, "", copy)
    begun.settle("of this one")

    assert begun.result() is SERVER
    assert begun.copied is copied
    assert asked == [(SERVER, "of this one")]


def test_a_copy_that_fails_is_an_error_of_the_start() -> None:
    """It is raised where the server is asked for."""

    def copy(server: Server, fingerprint: str) -> None:
        raise TemplateFailed("full")

    begun = ServerStart(lambda _: SERVER, "", copy)
    begun.settle("")

    with pytest.raises(TemplateFailed, match="full"):
        begun.result()


def test_an_error_is_raised_where_the_server_is_asked_for() -> None:
    """The thread dies silently."""

    def start(wish: Wish) -> Server:
        raise ServerUnavailable("none")

    begun = ServerStart(start, "")
    begun.settle("")

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

"""The server, started on a thread of its own while the project's tables are still loaded and compared.

The rule: whoever begins a start ends it, by taking the server or by abandoning it. Which template database the server
has to come with is guessed from the last run; once it is known, a start on a wrong guess is done again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_chatdify_db.servers.base import Server, Wish


class Abandoned(Exception):
    """Nobody waits for the server any more."""


class ServerStart:
    """A start that goes on.

    Args:
        start: Starts the server; runs on a thread.
        guess: The fingerprint of the template that the last run has needed; empty if that is not known.
    """

    def __init__(self, start: Callable[[Wish], Server], guess: str) -> None:
        self._known = threading.Event()
        self._fingerprint: str | None = None
        self._server: Server | None = None
        self._error: BaseException | None = None
        wish = Wish(guess, self._wanted)
        self._thread = threading.Thread(target=self._run, args=(start, wish), name="chatdify-db server", daemon=True)
        self._thread.start()

    def settle(self, fingerprint: str) -> None:
        """Say which template is needed; empty if none may be kept."""
        self._fingerprint = fingerprint
        self._known.set()

    def result(self) -> Server:
        """Return the server as soon as it is ready, or raise what its start has raised; the need is settled before."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._server is not None
        return self._server

    def abandon(self) -> None:
        """End the start, if it still goes on: what waits for the need to be settled gives up."""
        self._known.set()
        self._thread.join()

    def _wanted(self) -> str:
        self._known.wait()
        if self._fingerprint is None:
            raise Abandoned
        return self._fingerprint

    def _run(self, start: Callable[[Wish], Server], wish: Wish) -> None:
        try:
            self._server = start(wish)
        except BaseException as error:  # noqa: BLE001 - raised where the server is asked for
            self._error = error

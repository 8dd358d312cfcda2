"""The server, started on a thread of its own while the project's tables are still loaded and compared.

The rule: whoever begins a start ends it, by taking the server or by abandoning it. Which template database the server
has to come with is guessed from the last run; once it is known, a start on a wrong guess is done again. Where the
server has come with it, the thread copies it too; a template that has to be built is not its business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers.base import Server, Wish

#: Makes the process's database on a server from the template that a fingerprint stands for, if that is there.
Copy = Callable[[Server, str], "Copied | None"]


@dataclass(frozen=True, slots=True)
class Copied:
    """What was made ahead.

    Args:
        template: The name of the template database.
        database: The process's database, a copy of it.
    """

    template: str
    database: Address


class Abandoned(Exception):
    """Nobody waits for the server any more."""


class ServerStart:
    """A start that goes on.

    Args:
        start: Starts the server; runs on a thread.
        guess: The fingerprint of the template that the last run has needed; empty if that is not known.
        copy: Makes the process's database; runs on the thread, after the start.

    Attributes:
        copied: What *copy* returned, once `result` has returned.
    """

    def __init__(self, start: Callable[[Wish], Server], guess: str, copy: Copy = lambda *_: None) -> None:
        self._known = threading.Event()
        self._fingerprint: str | None = None
        self._server: Server | None = None
        self.copied: Copied | None = None
        self._error: BaseException | None = None
        wish = Wish(guess, self._wanted)
        self._thread = threading.Thread(
            target=self._run, args=(start, wish, copy), name="chatdify-db server", daemon=True
        )
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

    def _run(self, start: Callable[[Wish], Server], wish: Wish, copy: Copy) -> None:
        try:
            self._server = start(wish)
            self.copied = copy(self._server, self._wanted())
        except BaseException as error:  # noqa: BLE001 - raised where the server is asked for
            self._error = error

"""Connections that a test has taken out of SQLAlchemy's pools and not given back, each with the line that took it.

The rule: what is out when the test begins, and what a wider fixture takes while it is set up, is not the test's. Every
checkout of every engine comes through here: it costs a note in a dictionary, and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_chatdify_db.tracing import actors
from pytest_chatdify_db.tracing.callers import Callers
from pytest_chatdify_db.tracing.statements import Line
from pytest_chatdify_db.tracing.transcript import client_of

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that was taken out of a pool.

    Args:
        client: The number of the connection, which drivers know as the process id of the server.
        actor: On whose behalf: ``request GET /orders``, ``task ship[1f2e3d4c]``, ``test``...
        line: The line of the project that took it; None if there is none.
    """

    client: int
    actor: str
    line: Line | None


class Checkouts:
    """The connections that are out of their pools, of every engine of the process.

    Args:
        callers: Finds lines of the project.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        # With the pool's entry, so that its identity stays its own as long as it is a key.
        self._out: dict[int, tuple[ConnectionPoolEntry, Checkout]] = {}
        self._undo = ExitStack()

    def install(self) -> None:
        """Begin to listen."""
        self._listen("checkout", lambda _driver, entry, _proxy: self.take(entry))
        self._listen("checkin", lambda _driver, entry: self.give_back(entry))
        self._listen("detach", lambda _driver, entry: self.give_back(entry))

    def close(self) -> None:
        """Listen no longer."""
        self._undo.close()
        self._out.clear()

    def begin_test(self) -> None:
        """Forget what is out: it is not the coming test's."""
        self._out.clear()

    @contextmanager
    def disregarded(self) -> Iterator[None]:
        """Have what is taken in the block be nobody's, as a fixture that outlives the test gives it back later."""
        before = frozenset(self._out)
        try:
            yield
        finally:
            for key in frozenset(self._out) - before:
                self._out.pop(key, None)

    def left(self) -> list[Checkout]:
        """Return what was taken since the test began and is still out."""
        return [checkout for _, checkout in tuple(self._out.values())]

    def take(self, entry: ConnectionPoolEntry) -> None:
        """Note that the connection of *entry* leaves its pool."""
        try:
            client = client_of(entry)
        except Exception:  # noqa: BLE001 - what watches a pool must not break it
            return
        if client is not None:  # else it is of another database than PostgreSQL
            self._out[id(entry)] = entry, Checkout(client, actors.current(), self._callers.find(2))

    def give_back(self, entry: ConnectionPoolEntry) -> None:
        """Note that the connection of *entry* is in its pool again, or has left it for good."""
        self._out.pop(id(entry), None)

    def _listen(self, name: str, note: Callable[..., None]) -> None:
        from sqlalchemy import event
        from sqlalchemy.pool import Pool

        event.listen(Pool, name, note)
        self._undo.callback(event.remove, Pool, name, note)

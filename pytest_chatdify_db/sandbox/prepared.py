"""The prepared statements of the shared session, all clients' together.

The rule: a client's statement is prepared where it is next needed; what the session has under its name by then, and
what nobody uses any more, is closed in front of the next request.
"""

from __future__ import annotations

from pytest_chatdify_db.sandbox.client import Prepared
from pytest_chatdify_db.sandbox.closing import Closing


class PreparedStatements:
    """Those that the server's session has, by their names there."""

    def __init__(self, closing: Closing) -> None:
        self._there: dict[bytes, Prepared] = {}
        self._closing = closing

    def has(self, prepared: Prepared) -> bool:
        """Return whether the session has *prepared*; of an unnamed statement that is never sure for long."""
        return self._there.get(prepared.name) is prepared

    def prepared(self, prepared: Prepared) -> None:
        """Note that the session has it now."""
        if prepared.name:
            self._there[prepared.name] = prepared

    def closed(self, prepared: Prepared) -> None:
        """Note that the client has closed it."""
        if self.has(prepared):
            del self._there[prepared.name]

    def make_room(self, prepared: Prepared) -> None:
        """Have the server forget what has the name of *prepared*: it was replaced while its client was elsewhere."""
        if (other := self._there.get(prepared.name)) is not None:
            self.discard(other)

    def discard(self, prepared: Prepared) -> None:
        """Have the server forget a statement."""
        if self.has(prepared):
            del self._there[prepared.name]
            self._closing.statement(prepared.name)

"""What clients have closed, or nobody needs any more, and the server's session still has: statements and portals.

The rule: it is closed there in front of the next request, whosever that is.
"""

from __future__ import annotations

from pytest_chatdify_db.postgres import wire


class Closing:
    """The messages that close it."""

    def __init__(self) -> None:
        self._messages = bytearray()

    def __bool__(self) -> bool:
        return bool(self._messages)

    def statement(self, server_name: bytes) -> None:
        """Have the server forget a prepared statement."""
        self._messages += wire.message(b"C", b"S" + server_name + b"\0")

    def portal(self, server_name: bytes) -> None:
        """Have the server close a portal or cursor."""
        self._messages += wire.message(b"C", b"P" + server_name + b"\0")

    def take(self) -> bytes:
        """Return the messages, to be followed by Sync."""
        messages = bytes(self._messages)
        self._messages.clear()
        return messages

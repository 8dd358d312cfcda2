"""What connections have executed lately, for the report of a test that fails: of each statement the text, no values.

A test run knows what its own engines execute; this tells of the others: child processes, drivers without an engine.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from pytest_chatdify_db.sandbox.reports import Executed
from pytest_chatdify_db.sandbox.texts import shown

if TYPE_CHECKING:
    from pytest_chatdify_db.sandbox.client import Client

#: More than any report shows, also where most are of engines.
_MOST: Final = 200


class Journal:
    """The last statements since the running test began, oldest first."""

    def __init__(self) -> None:
        # Made for every statement that is executed, and read for few.
        self._entries: deque[list[Any]] = deque(maxlen=_MOST)

    def note(self, client: Client, sql: bytes | str) -> None:
        """Take note of a statement that *client* executes now."""
        self._entries.append([client, sql, False])

    def failed(self, client: Client) -> None:
        """Take note that the last statement of *client* has failed."""
        for entry in reversed(self._entries):
            if entry[0] is client:
                entry[2] = True
                return

    def clear(self) -> None:
        """Begin anew."""
        self._entries.clear()

    def read(self) -> list[Executed]:
        """Return the statements."""
        return [
            Executed(
                client.number,
                client.parameters.effective.get("application_name", ""),
                shown(sql),
                has_failed,
            )
            for client, sql, has_failed in self._entries
        ]

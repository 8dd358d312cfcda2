"""What connections have executed lately, for the report of a test that fails: of each statement the text, no values.

A test run knows what its own engines execute; this tells of the others: child processes, drivers without an engine.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

from pytest_chatdify_db.sandbox.reports import Executed
from pytest_chatdify_db.sandbox.texts import shown

#: More than any report shows, also where most are of engines.
_MOST: Final = 200


class Author(Protocol):
    """Who executes statements: a client."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def application_name(self) -> str:
        """What it calls itself now."""


class Journal:
    """The last statements since the running test began, oldest first."""

    def __init__(self) -> None:
        # Made for every statement that is executed, and read for few.
        self._entries: deque[list[Any]] = deque(maxlen=_MOST)

    def note(self, author: Author, sql: bytes | str) -> None:
        """Take note of a statement that *author* executes now."""
        self._entries.append([author, sql, False])

    def failed(self, author: Author) -> None:
        """Take note that the last statement of *author* has failed."""
        for entry in reversed(self._entries):
            if entry[0] is author:
                entry[2] = True
                return

    def clear(self) -> None:
        """Begin anew."""
        self._entries.clear()

    def read(self) -> list[Executed]:
        """Return the statements."""
        return [
            Executed(author.number, author.application_name, shown(sql), has_failed)
            for author, sql, has_failed in self._entries
        ]

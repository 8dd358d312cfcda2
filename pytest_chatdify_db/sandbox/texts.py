"""A query text as it goes to the server: a part of the client's, names replaced, and the way back for positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import sql
from pytest_chatdify_db.sandbox.lexer import split
from pytest_chatdify_db.sandbox.statement import CACHED_LENGTH, Statement

#: Statements and where each begins in the query text.
Parts = Sequence[tuple[Statement, int]]


class Replacement(NamedTuple):
    """Other words for the bytes from *start* to *end*."""

    start: int
    end: int
    words: bytes


@dataclass(frozen=True, slots=True)
class Text:
    """What is sent.

    Args:
        original: The client's text.
        start: Where the part begins that is sent.
        end: Where it ends.
        replaced: What is said otherwise in it, in order; offsets are those of *original*.
        is_utf8: Whether it is UTF-8; otherwise a character is taken to be a byte.
    """

    original: bytes
    start: int
    end: int
    replaced: tuple[Replacement, ...] = ()
    is_utf8: bool = True

    @property
    def sent(self) -> bytes:
        """The bytes to send."""
        if not self.replaced:
            return self.original[self.start : self.end]
        parts, at = [], self.start
        for start, end, words in self.replaced:
            parts += [self.original[at:start], words]
            at = end
        return b"".join([*parts, self.original[at : self.end]])

    def original_position(self, position: int) -> int:
        """Return the position in the client's text of the character at *position* (from 1) of the text sent."""
        at = len(self._encode(self._decode(self.sent)[: position - 1]))
        shift = -self.start
        for start, end, words in self.replaced:
            if at < start + shift + len(words):
                at = min(at, start + shift)
                break
            shift += len(words) - (end - start)
        return len(self._decode(self.original[: at - shift])) + 1

    def _decode(self, data: bytes) -> str:
        return data.decode("utf-8", "surrogateescape") if self.is_utf8 else data.decode("latin-1")

    def _encode(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape") if self.is_utf8 else text.encode("latin-1")

    def repositioned(self, message: bytes) -> bytes:
        """Return an ErrorResponse or NoticeResponse about the text sent as one about the client's text."""
        fields = message[5:-2].split(b"\0")
        for index, field in enumerate(fields):
            if field[:1] == b"P":
                fields[index] = b"P%d" % self.original_position(int(field[1:]))
        return wire.message(message[:1], b"\0".join(fields) + b"\0\0")


def shown(sql: bytes | str) -> str:
    """Return a query text as a report shows it."""
    return sql.decode("utf-8", "replace") if isinstance(sql, bytes) else sql


def parts(text: bytes) -> Parts:
    """Return the statements of a query text, and where each begins."""
    return _parts_cached(text) if len(text) <= CACHED_LENGTH else _find_parts(text)


def _find_parts(text: bytes) -> Parts:
    statements = iter(sql.parse(text))
    statement = next(statements, None)
    found, position = [], 0
    for part in split(text.decode("latin-1")):
        if statement is not None and part == statement.text:  # the others are empty but for comments
            found.append((statement, position))
            statement = next(statements, None)
        position += len(part) + 1
    return found


_parts_cached = lru_cache(maxsize=2_048)(_find_parts)

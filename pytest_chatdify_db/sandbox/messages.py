"""The messages of a client as values: their type bytes, and what a long COPY puts in the place of many of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, Self

from pytest_chatdify_db.postgres import wire

#: Type bytes of the messages of clients (54.7).
BIND, CLOSE, DESCRIBE, EXECUTE, FLUSH, FUNCTION_CALL, PARSE, QUERY, SYNC, TERMINATE = b"BCDEHFPQSX"
COPY_DATA, COPY_DONE, COPY_FAIL = b"dcf"
PASSWORD = ord("p")

#: Those after which a client waits for an answer, or has given all the data of a COPY.
ENDS_UNIT: Final = frozenset({SYNC, FLUSH, QUERY, FUNCTION_CALL, COPY_DONE, COPY_FAIL})
#: Those of the extended protocol that are answered together.
EXTENDED: Final = frozenset({BIND, CLOSE, DESCRIBE, EXECUTE, PARSE})
#: Those of a COPY.
DATA: Final = frozenset({COPY_DATA, COPY_DONE, COPY_FAIL})
KNOWN: Final = ENDS_UNIT | EXTENDED | {COPY_DATA, TERMINATE}


class Message(NamedTuple):
    """A message of the client: its type byte and its body."""

    kind: int
    body: bytes

    @property
    def encoded(self) -> bytes:
        """The message as it is sent."""
        return wire.message(bytes((self.kind,)), self.body)


class Store(Protocol):
    """Where the data of a COPY is kept until there is all of it; it may be more than fits into memory."""

    def put(self, data: bytes) -> None:
        """Add *data* at the end; raises OSError if there is no room."""

    def take(self) -> Iterator[bytes]:
        """Yield all of it in parts of bounded length, once."""


class Memory:
    """The store of a client that has no other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def put(self, data: bytes) -> None:
        """Add *data* at the end."""
        self._parts.append(data)

    def take(self) -> Iterator[bytes]:
        """Yield all of it."""
        yield from self._parts


class Stored(Message):
    """Many CopyData messages, kept aside as they came."""

    store: Store

    @classmethod
    def in_(cls, store: Store) -> Self:
        """Return a message that stands for what is put into *store*."""
        message = cls(COPY_DATA, b"")
        message.store = store
        return message


def bound_values(body: bytes, at: int) -> tuple[str | None, ...]:
    """Return, as text, the values in a Bind *body* whose names end at *at*.

    Raises:
        ProtocolViolation: The body is cut short.
    """
    try:
        at += 2 + 2 * wire.int16(body, at)
        return tuple(None if value is None else value.decode("latin-1") for value in wire.row_values(body[at:]))
    except Exception as error:
        raise wire.ProtocolViolation("invalid message format") from error

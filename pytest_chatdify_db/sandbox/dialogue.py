"""How the test run and its sandbox talk: mappings with names as keys, marshalled, each behind its length.

The rule: both ends are the same interpreter, which starts the one from the other. Every test waits for such a message,
and as JSON it took as long as a statement.
"""

from __future__ import annotations

import marshal
from struct import Struct
from typing import Any, BinaryIO, Final

Said = dict[str, Any]

_LENGTH: Final = Struct("!I")


def packed(said: Said) -> bytes:
    """Return *said* as bytes.

    Args:
        said: Names and their values: text, numbers, truth values, None, and lists, tuples and mappings of these.
    """
    data = marshal.dumps(said)
    return _LENGTH.pack(len(data)) + data


def read(stream: BinaryIO) -> Said | None:
    """Return the next of what is said on *stream*; None at its end, also in the middle of something."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    said: Said | None = marshal.loads(data) if len(data) == length else None  # noqa: S302 - the other end is our own
    return said


class Unpacker:
    """Takes bytes as they come."""

    def __init__(self) -> None:
        self._unread = b""

    def take(self, data: bytes) -> list[Said]:
        """Return what is whole with *data*, in order."""
        unread, at, whole = self._unread + data, 0, []
        while len(unread) >= at + _LENGTH.size:
            begin = at + _LENGTH.size
            end = begin + _LENGTH.unpack_from(unread, at)[0]
            if end > len(unread):
                break
            whole.append(marshal.loads(unread[begin:end]))  # noqa: S302 - the other end is our own
            at = end
        self._unread = unread[at:]
        return whole

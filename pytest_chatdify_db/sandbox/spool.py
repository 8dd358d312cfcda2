"""What a client has not read yet, or the server not got, in a file: a result or a COPY may be larger than memory.

A queue of bytes, written at its end and read from its beginning. The file has no name, so nothing of it is ever left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final

#: Bytes that are read at once.
_PART: Final = 1 << 20


class Spool:
    """The queue; it has no file while it is empty."""

    __slots__ = ("_file", "_first", "_last")

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._first = 0
        self._last = 0

    def __len__(self) -> int:
        return self._last - self._first

    def put(self, data: bytes | bytearray) -> None:
        """Add *data* at the end.

        Raises:
            OSError: There is no room.
        """
        if self._file is None:
            import tempfile  # takes 10 ms, of a start that everybody waits for

            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives while it holds something
        self._file.seek(self._last)
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self._last += written
            view = view[written:]

    def head(self, most: int) -> bytes:
        """Return at most *most* bytes from the beginning; they stay."""
        if self._file is None:
            return b""
        self._file.seek(self._first)
        return self._file.read(min(most, len(self)))

    def drop(self, count: int) -> None:
        """Remove *count* bytes from the beginning."""
        self._first += count
        if self._first == self._last:
            self.clear()

    def take(self) -> Iterator[bytes]:
        """Yield all of it in parts, and remove it."""
        while self:
            part = self.head(_PART)
            self.drop(len(part))
            yield part

    def clear(self) -> None:
        """Remove everything."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._first = self._last = 0

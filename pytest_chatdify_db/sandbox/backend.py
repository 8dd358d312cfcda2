"""One session of a real server: what was asked, and to whom each part of the answer belongs. No I/O.

The rule: whatever is sent ends in ReadyForQuery, once for each ``Reply`` that waits. Nobody holds the session between
two exchanges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, TypeVar

from pytest_chatdify_db.postgres import wire

#: Messages that go to the client as they are.
_PASSED: Final = frozenset(b"DTtdcHnV")
_DATA_ROW: Final = ord("D")
_NOT_RECOGNISED: Final = wire.message(b"f", b"the test's sandbox has not recognised the statement\0")
_header = Struct("!Bi").unpack_from


class Reply:
    """What the server answers up to one ReadyForQuery, kept; for what the sandbox asks by itself.

    Attributes:
        is_statement: Whether it answers a client's own statement, the one thing that may be cancelled.
        takes_data: Whether the data of a COPY FROM STDIN goes with the request.
        has_changed: Whether rows may have been changed, as far as the command tags tell.
    """

    is_statement = False
    takes_data = False
    has_changed = True
    notices = b""

    def __init__(self) -> None:
        self.error: bytes | None = None
        self.rows: list[list[str | None]] = []
        self.status = ""

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the error, empty if there was none."""
        return wire.error_fields(self.error[5:]) if self.error else {}

    def passed(self, data: bytearray) -> None:
        """Take a run of messages that need no decision."""
        position = 0
        while position < len(data):
            end = position + 1 + wire.int32(data, position + 1)
            if data[position] == 68:  # DataRow
                row = wire.row_values(bytes(data[position + 5 : end]))
                self.rows.append([None if value is None else value.decode("latin-1") for value in row])
            position = end

    def special(self, kind: int, message: bytes) -> None:
        """Take a message that may need one."""
        if kind == 69:
            self.error = self.error or message
        elif kind == 78:
            self.notices += message


AnyReply = TypeVar("AnyReply", bound=Reply)


@dataclass(slots=True)
class Streamed:
    """A request that may be larger than memory.

    Args:
        head: Its beginning.
        parts: What follows.
        tail: Its end.
    """

    head: bytes
    parts: Iterator[bytes]
    tail: bytes


Request = bytes | bytearray | Streamed


@dataclass(slots=True)
class Exchange:
    """Bytes for the server, and one reply for each ReadyForQuery they will bring."""

    data: bytearray = field(default_factory=bytearray)
    replies: list[Reply] = field(default_factory=list)
    streams: list[tuple[bytearray, Iterator[bytes]]] = field(default_factory=list)  # and what goes before each

    def ask(self, data: Request, reply: AnyReply) -> AnyReply:
        """Add a request."""
        if isinstance(data, Streamed):
            self.streams.append((self.data + data.head, data.parts))
            self.data = bytearray(data.tail)
        else:
            self.data += data
        self.replies.append(reply)
        return reply


@dataclass(slots=True)
class Backend:
    """The session.

    Args:
        parameters: What it has reported of its parameters.
        notified: Called with each NotificationResponse.
        out: Bytes to be sent.
        status: The last transaction status: idle ``I``, in a transaction ``T``, in a failed one ``E``.
        fatal: The message it ended with, if it did.
        make_room: Called when more is to come than fits into ``out``.
    """

    parameters: dict[str, str]
    notified: Callable[[bytes], None]
    out: bytearray = field(default_factory=bytearray)
    status: str = "I"
    fatal: bytes | None = None
    make_room: Callable[[], None] = lambda: None
    _buffer: bytearray = field(default_factory=bytearray)
    _waiting: deque[Reply] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        """Whether everything asked has been answered."""
        return not self._waiting

    @property
    def runs_statement(self) -> bool:
        """Whether a client's own statement is what the server answers now."""
        return bool(self._waiting) and self._waiting[0].is_statement

    @property
    def fatal_text(self) -> str:
        """What the server said before it ended the session, empty if nothing."""
        return wire.error_fields(self.fatal[5:]).get("M", "") if self.fatal else ""

    def send(self, exchange: Exchange) -> None:
        """Queue *exchange*."""
        for head, parts in exchange.streams:
            self.out += head
            for part in parts:
                self.out += part
                self.make_room()
        self.out += exchange.data
        self._waiting.extend(exchange.replies)

    def receive(self, data: bytes) -> None:
        """Take bytes from the server and hand them to the replies that wait for them."""
        buffer = self._buffer
        buffer += data
        position = run = 0
        end_of_data = len(buffer)
        last_header = end_of_data - 5
        while position <= last_header:
            kind, length = _header(buffer, position)
            end = position + 1 + length
            while kind == _DATA_ROW and end <= last_header:  # as most messages are; this is where time goes
                position = end
                kind, length = _header(buffer, position)
                end = position + 1 + length
            if end > end_of_data:
                break
            if kind not in _PASSED:
                if run < position:
                    self._waiting[0].passed(buffer[run:position])
                self._special(kind, bytes(buffer[position:end]))
                run = end
            position = end
        if run < position:
            self._waiting[0].passed(buffer[run:position])
        if position:
            del buffer[:position]

    def _special(self, kind: int, message: bytes) -> None:
        if kind == 90:  # ReadyForQuery
            self.status = chr(message[5])
            self._waiting.popleft().status = self.status
        elif kind == 83:  # ParameterStatus
            name, value = message[5:-1].split(b"\0")
            self.parameters[name.decode()] = value.decode("utf-8", "replace")
        elif kind == 65:  # NotificationResponse
            self.notified(message)
        elif kind == 71 and not self._waiting[0].takes_data:  # CopyInResponse: nobody would ever send the data
            self.out += _NOT_RECOGNISED
        else:
            if kind == 69 and b"\0VFATAL\0" in message:
                self.fatal = message
            if self._waiting:
                self._waiting[0].special(kind, message)

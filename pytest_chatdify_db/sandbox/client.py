"""One client: its messages cut into units, what it has prepared and set, and the bytes that go back to it. No I/O.

The rule: a unit is what a client sends before it waits (up to Sync, Flush or Query, or all the data of a COPY), and is
served as a whole or not at all. So a client that is slow, or that waits for another one, never holds the server.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import sql
from pytest_chatdify_db.sandbox.parameters import Parameters
from pytest_chatdify_db.sandbox.sql import Kind, Statement
from pytest_chatdify_db.sandbox.transactions import Transaction

#: Type bytes of the messages of clients (54.7).
BIND, CLOSE, DESCRIBE, EXECUTE, FLUSH, FUNCTION_CALL, PARSE, QUERY, SYNC, TERMINATE = b"BCDEHFPQSX"
COPY_DATA, COPY_DONE, COPY_FAIL = b"dcf"
PASSWORD = ord("p")

_ENDS_UNIT: Final = frozenset({SYNC, FLUSH, QUERY, FUNCTION_CALL, COPY_DONE, COPY_FAIL})
_EXTENDED: Final = frozenset({BIND, CLOSE, DESCRIBE, EXECUTE, PARSE})
_KNOWN: Final = _ENDS_UNIT | _EXTENDED | {COPY_DATA, TERMINATE}


class Stage(Enum):
    """How far a connection has come."""

    STARTING = auto()
    IDENTIFYING = auto()
    READY = auto()
    ENDED = auto()


class Message(NamedTuple):
    """A message of the client: its type byte and its body."""

    kind: int
    body: bytes

    @property
    def encoded(self) -> bytes:
        """The message as it is sent."""
        return wire.message(bytes((self.kind,)), self.body)


@dataclass(eq=False, slots=True)
class Prepared:
    """A prepared statement: what Parse said, kept so that it can be said again to another session.

    Args:
        name: The name on the server; empty for the unnamed statement.
        rest: The body of Parse behind the name: the text and the parameter types.
        statement: What the text does; None if it holds no statement, or several.
    """

    name: bytes
    rest: bytes
    statement: Statement | None

    @property
    def is_empty(self) -> bool:
        """Whether its text holds nothing to do."""
        return not sql.parse(wire.cstring(self.rest)[0])

    @property
    def parse(self) -> bytes:
        """The Parse message."""
        return wire.message(b"P", self.name + b"\0" + self.rest)


@dataclass(eq=False, slots=True)
class Portal:
    """A bound statement.

    Args:
        prepared: The statement.
        values: What is bound to it, in text form, where that matters.
        bind: The Bind message, to be sent again.
    """

    prepared: Prepared | None
    values: tuple[str | None, ...] = ()
    bind: bytes = b""

    @property
    def statement(self) -> Statement | None:
        """What it does, if that is known."""
        return self.prepared.statement if self.prepared else None


@dataclass(slots=True)
class Copying:
    """A COPY FROM STDIN that collects its data: the request, and the statements behind it in the same query."""

    request: bytes
    statement: Statement
    following: list[Statement]
    is_extended: bool


@dataclass(eq=False, slots=True)
class Client:
    """A connection of the code under test.

    Args:
        number: Its number, also the process id it is told.
        key: The secret that its cancel requests must carry.
    """

    number: int
    key: bytes
    out: bytearray = field(default_factory=bytearray)
    units: deque[list[Message]] = field(default_factory=deque)
    parameters: Parameters = field(default_factory=Parameters)
    reported: dict[str, str] = field(default_factory=dict)
    transaction: Transaction | None = None
    statements: dict[bytes, Prepared] = field(default_factory=dict)
    portals: dict[bytes, Portal] = field(default_factory=dict)
    cursors: set[bytes] = field(default_factory=set)
    notifications: bytearray = field(default_factory=bytearray)
    channels: set[str] = field(default_factory=set)
    copying: Copying | None = None
    stage: Stage = Stage.STARTING
    user: str = ""
    database: str = ""
    skips: bool = False  # until Sync, after an error in the extended protocol
    mid_pipeline: bool = False  # extended messages came since the last Sync
    last_sql: str = ""
    _buffer: bytearray = field(default_factory=bytearray)
    _unit: list[Message] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How messages call it."""
        name = self.parameters.effective.get("application_name", "")
        return f"connection {self.number}" + (f" ({name})" if name else "")

    def describe(self) -> str:
        """Say in a line who it is and what it did last."""
        statement = " ".join(self.last_sql.split())
        return f"{self.label}, last statement: {statement[:200] or 'none'}"

    @property
    def prefix(self) -> bytes:
        """What its statements' and cursors' names begin with on the server, where all clients share one name space."""
        return b"chatdify.%d." % self.number

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun a transaction."""
        return self.transaction is not None and not self.transaction.implicit

    @property
    def status(self) -> str:
        """The transaction status it is told."""
        if self.transaction is None or (self.transaction.implicit and not self.mid_pipeline):
            return "I"
        return "E" if self.transaction.failed else "T"

    # -- In

    def feed(self, data: bytes) -> None:
        """Take bytes; the methods that follow find the messages in them."""
        self._buffer += data

    def take_first_packet(self) -> bytes | None:
        """Return the untyped packet at the head of what has come, None while it is not all there.

        Raises:
            ProtocolViolation: There is no such packet.
        """
        length = wire.first_packet_length(self._buffer)
        if length is None:
            return None
        packet = bytes(self._buffer[:length])
        del self._buffer[:length]
        return packet

    def take_password(self) -> bytes | None:
        """Return the password that has come, None while it is not all there.

        Raises:
            ProtocolViolation: Something else has come.
        """
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        length = wire.int32(buffer, 1)
        if buffer[0] != PASSWORD or not 4 <= length <= wire.MAX_STARTUP_LENGTH:
            raise wire.ProtocolViolation(f"expected password response, got message type {buffer[0]}")
        if len(buffer) <= length:
            return None
        password, _ = wire.cstring(bytes(buffer[5 : length + 1]))
        del buffer[: length + 1]
        return password

    def cut(self) -> None:
        """Cut what has come into units.

        Raises:
            ProtocolViolation: They are no messages of a client.
        """
        buffer = self._buffer
        position, end_of_data = 0, len(buffer)
        while end_of_data - position >= 5 and self.stage is Stage.READY:
            kind = buffer[position]
            length = wire.int32(buffer, position + 1)
            if kind not in _KNOWN:
                raise wire.ProtocolViolation(f"invalid frontend message type {kind}")
            if not 4 <= length <= wire.MAX_MESSAGE_LENGTH:
                raise wire.ProtocolViolation("invalid message length")
            end = position + 1 + length
            if end > end_of_data:
                break
            self._add(Message(kind, bytes(buffer[position + 5 : end])))
            position = end
        if position:
            del buffer[:position]

    def _add(self, message: Message) -> None:
        if message.kind == TERMINATE:
            self.stage = Stage.ENDED
            return
        self._unit.append(message)
        if message.kind in _ENDS_UNIT:
            self.units.append(self._unit)
            self._unit = []

    # -- Out

    def notify(self, message: bytes) -> None:
        """Pass a notification on, at once if the client is idle, else with the end of its transaction."""
        if self.in_transaction:
            self.notifications += message
        else:
            self.out += message

    def send(self, data: bytes) -> None:
        """Queue bytes for the client."""
        self.out += data

    def ready(self) -> None:
        """Tell the client that it may go on."""
        if self.notifications and not self.in_transaction:
            self.out += self.notifications
            self.notifications.clear()
        self.out += wire.READY[self.status]

    # -- Names

    def prepare(self, body: bytes) -> tuple[bytes, Prepared]:
        """Return the client's name of the statement that a Parse *body* defines, and the statement.

        Raises:
            ProtocolViolation: The body is cut short.
        """
        name, after = wire.cstring(body)
        text, _ = wire.cstring(body, after)
        found = sql.parse(text)
        statement = found[0] if len(found) == 1 else None
        rest = body[after:]
        if statement is not None and statement.kind in NAMING:
            renamed = statement.renamed(self.server_name(statement.name))
            rest = renamed.encode("latin-1") + rest[len(text) :]
        return name, Prepared(self.prefix + name if name else b"", rest, statement)

    def server_name(self, name: str) -> str:
        """Return what a statement that the client calls *name* is called on the server."""
        return self.prefix.decode() + name


#: Statements of SQL that name a prepared statement.
NAMING: Final = frozenset({Kind.PREPARE, Kind.EXECUTE, Kind.DEALLOCATE})


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

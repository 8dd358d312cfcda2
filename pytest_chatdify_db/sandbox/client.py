"""One client: its messages cut into units, what it has prepared and set, and the bytes that go back to it. No I/O.

The rule: a unit is what a client sends before it waits (up to Sync, Flush or Query, or all the data of a COPY), and is
served as a whole or not at all. So a client that is slow, or that waits for another one, never holds the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import blake2b
from struct import Struct

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import sql
from pytest_chatdify_db.sandbox.journal import Journal
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH, cut
from pytest_chatdify_db.sandbox.messages import (
    COPY_DATA,
    DATA,
    ENDS_UNIT,
    EXTENDED,
    FLUSH,
    KNOWN,
    PASSWORD,
    TERMINATE,
    Memory,
    Message,
    Store,
    Stored,
)
from pytest_chatdify_db.sandbox.parameters import Change, InForce, Parameters
from pytest_chatdify_db.sandbox.statement import Statement
from pytest_chatdify_db.sandbox.temporary import NO_TABLES, Tables
from pytest_chatdify_db.sandbox.texts import Text, shown
from pytest_chatdify_db.sandbox.transactions import Transaction

_header = Struct("!Bi").unpack_from


class Stage(Enum):
    """How far a connection has come."""

    STARTING = auto()
    IDENTIFYING = auto()
    READY = auto()
    ENDED = auto()


@dataclass(eq=False, slots=True)
class Prepared:
    """A prepared statement: what Parse said, kept so that it can be said again to another session.

    Args:
        name: The name on the server; empty for the unnamed statement.
        rest: The body of Parse behind the name: the text and the parameter types.
        statement: What the text does; None if it holds no statement, or several.
        text: The client's text, where that is not the one in ``rest``.
        is_local: Whether the sandbox answers for it, so that the server need not have it.
    """

    name: bytes
    rest: bytes
    statement: Statement | None
    text: Text | None = None
    is_local: bool = False

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
        has_run: Whether the sandbox has answered its Execute, so that there is nothing left to execute.
    """

    prepared: Prepared | None
    values: tuple[str | None, ...] = ()
    bind: bytes = b""
    has_run: bool = False

    @property
    def statement(self) -> Statement | None:
        """What it does, if that is known."""
        return self.prepared.statement if self.prepared else None


@dataclass(slots=True)
class Cursor:
    """An open cursor or portal of a client.

    Args:
        server_name: Its name on the server.
        depth: How many savepoints its client had set when it was opened; one that is undone takes it along.
        is_holdable: Whether it was declared WITH HOLD.
        is_held: Whether its transaction has committed, so that none undoes it any more.
        tick: When it was opened, as the history of the transaction counts.
        undone_by: The client whose rollback has closed it on the server, as messages call it; empty if it is open.
    """

    server_name: bytes
    depth: int
    is_holdable: bool = False
    is_held: bool = False
    tick: int = 0
    undone_by: str = ""


@dataclass(slots=True)
class Copying:
    """A COPY FROM STDIN that collects its data.

    Args:
        request: The message that begins it, or the messages.
        statement: What it says.
        text: The query it stands in; None in the extended protocol.
        following: The statements behind it in that query, and where each begins.
        data: What has come of the data, where more of it is to come behind a Sync or Flush.
        is_cancelled: Whether it was cancelled meanwhile.
    """

    request: bytes
    statement: Statement
    text: Text | None = None
    following: Sequence[tuple[Statement, int]] = ()
    data: list[Message] = field(default_factory=list)
    is_cancelled: bool = False

    @property
    def is_extended(self) -> bool:
        """Whether it was sent as Execute, and the client's Sync is still to come."""
        return self.text is None


@dataclass(eq=False, slots=True)
class Client:
    """A connection of the code under test.

    Args:
        number: Its number, also the process id it is told.
        key: The secret that its cancel requests must carry.
        journal: Takes what it executes; one for all clients.
    """

    number: int
    key: bytes
    journal: Journal = field(default_factory=Journal)
    out: bytearray = field(default_factory=bytearray)
    units: deque[list[Message]] = field(default_factory=deque)
    parameters: Parameters = field(default_factory=Parameters)
    defaults: dict[str, str] = field(default_factory=dict)  # what the server reported when it came
    reported: dict[str, str] = field(default_factory=dict)  # what it has been told since
    told: InForce | None = None  # what was in force when it was told
    transaction: Transaction | None = None
    statements: dict[bytes, Prepared] = field(default_factory=dict)
    has_local: bool = False  # statements that the sandbox answers for
    portals: dict[bytes, Portal] = field(default_factory=dict)
    cursors: dict[bytes, Cursor] = field(default_factory=dict)
    # Python 3.11 takes no mapping proxy for a default.
    temporary: Tables = field(default_factory=lambda: NO_TABLES)
    notifications: bytearray = field(default_factory=bytearray)
    channels: set[str] = field(default_factory=set)
    copying: Copying | None = None
    stage: Stage = Stage.STARTING
    user: str = ""
    database: str = ""
    skips: bool = False  # until Sync, after an error in the extended protocol
    mid_pipeline: bool = False  # something was executed since the last Sync, COMMIT or ROLLBACK
    last_sql: bytes | str = ""
    long_names: dict[bytes, bytes] = field(default_factory=dict)  # by what they are called on the server
    writing_cursors: set[str] = field(default_factory=set)
    new_store: Callable[[], Store] = Memory
    explanation: str = ""  # of a cancellation, if it was not the client's own
    is_told_of_end: bool = False  # the last words of its connection have gone to it
    _buffer: bytearray = field(default_factory=bytearray)
    _unit: list[Message] = field(default_factory=list)

    def readable(self, text: bytes) -> bytes:
        """Return a query *text* as one that can be read byte by byte."""
        reading = self.parameters.in_force.reading
        return text if reading is None else reading.readable(text)

    @property
    def encoding(self) -> str:
        """The encoding of what it says, as the server calls it."""
        return self.reported.get("client_encoding", "UTF8")

    def keep_encoding(self) -> None:
        """Go on with the encoding that it has chosen in a session of its own: its driver does."""
        if self.encoding != self.parameters.reports(self.defaults, {}).get("client_encoding", self.encoding):
            self.parameters.learn(Change("client_encoding", is_local=False), self.encoding)

    @property
    def is_utf8(self) -> bool:
        """Whether what it says is UTF-8."""
        return self.encoding == "UTF8"

    def runs(self, sql: bytes | str) -> None:
        """Take note of the statement that it executes now, of which *sql* is the beginning."""
        self.last_sql = sql
        self.journal.note(self, sql)

    @property
    def application_name(self) -> str:
        """What it calls itself, empty if it has not said so."""
        return self.parameters.effective.get("application_name", "")

    @property
    def label(self) -> str:
        """How messages call it."""
        name = self.application_name
        return f"connection {self.number}" + (f" ({name})" if name else "")

    def describe(self) -> str:
        """Say in a line who it is and what it did last."""
        statement = " ".join(shown(self.last_sql).split())
        return f"{self.label}, last statement: {statement[:200] or 'none'}"

    @property
    def prefix(self) -> bytes:
        """What its statements' and cursors' names begin with on the server (see `server_name`)."""
        return b"chatdify.%d." % self.number

    def server_name(self, name: bytes, identifier: bytes = b"") -> bytes:
        """Return what the client's statement or cursor *name* is called where all clients share one name space.

        Args:
            name: The client's name, of any length.
            identifier: What stands for it in SQL, if it is longer than a name: the server will say that it cuts it.
        """
        longest = self.prefix + (identifier or name)
        has_bytes = not (longest.isascii() or self.is_utf8)  # that are others in the next client's encoding
        if len(longest) <= NAME_LENGTH and not has_bytes:
            return longest
        # The server would cut off what tells it from others.
        digest = blake2b(name[:NAME_LENGTH], digest_size=12).hexdigest().encode()
        if has_bytes:
            self.long_names[self.prefix + digest] = name[:NAME_LENGTH]
            return self.prefix + digest
        longest = self.prefix + digest + b"." + (identifier or name)
        server_name = cut(longest.decode("latin-1")).encode("latin-1")
        self.long_names[server_name] = name
        if not identifier:
            return server_name
        self.long_names[longest] = identifier
        return longest

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
            OSError: There is no room for the data of a COPY.
        """
        buffer = self._buffer
        position, end_of_data = 0, len(buffer)
        while end_of_data - position >= 5 and self.stage is Stage.READY:
            kind, length = _header(buffer, position)
            if kind not in KNOWN:
                raise wire.ProtocolViolation(f"invalid frontend message type {kind}")
            if not 4 <= length <= wire.MAX_MESSAGE_LENGTH:
                raise wire.ProtocolViolation("invalid message length")
            end = position + 1 + length
            if end > end_of_data:
                break
            if kind == TERMINATE:
                self.stage = Stage.ENDED
            else:
                if kind in DATA and self._unit and self._unit[-1].kind in EXTENDED:  # of a COPY that they begin
                    self.units.append([*self._unit, Message(FLUSH, b"")])
                    self._unit = []
                self._unit.append(Message(kind, bytes(buffer[position + 5 : end])))
                if kind in ENDS_UNIT:
                    self.units.append(self._unit)
                    self._unit = []
            position = end
        if position:
            del buffer[:position]
        if self._unit and self._unit[-1].kind == COPY_DATA:
            self._keep_aside()

    def _keep_aside(self) -> None:
        """Keep the data of a COPY that has more to come outside of memory."""
        unit = self._unit
        if not isinstance(unit[0], Stored):
            unit.insert(0, Stored.in_(self.new_store()))
        stored = unit[0]
        assert isinstance(stored, Stored)
        stored.store.put(b"".join(message.encoded for message in unit[1:] if message.kind == COPY_DATA))
        unit[1:] = [message for message in unit[1:] if message.kind != COPY_DATA]

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

    def warning(self, sqlstate: str, text: str) -> bytes:
        """Return a warning as the server gives it, empty if the client wants to hear of errors only."""
        is_heard = self.parameters.effective.get("client_min_messages") != "error"
        return wire.notice(sqlstate, text) if is_heard else b""

    def ready(self) -> None:
        """Tell the client that it may go on."""
        if self.notifications and not self.in_transaction:
            self.out += self.notifications
            self.notifications.clear()
        self.out += wire.READY[self.status]

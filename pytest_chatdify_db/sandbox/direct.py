"""A client with a session of its own, for tests that have a database of their own. No I/O.

The rule: everything passes as it is, in both directions. Only a statement that the client prepared on another session
is prepared again, unseen, before it is used, so that an application's pools can be moved from database to database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.quoting import in_ascii, quote_name
from pytest_chatdify_db.sandbox import leftovers, names, parameters, texts
from pytest_chatdify_db.sandbox.client import Client, Prepared
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH, text_of
from pytest_chatdify_db.sandbox.messages import (
    BIND,
    CLOSE,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    Message,
    Stored,
)
from pytest_chatdify_db.sandbox.relay import own_words
from pytest_chatdify_db.sandbox.statement import Kind, Statement
from pytest_chatdify_db.sandbox.texts import Text

_HEADER = Struct("!i")

#: Kinds of statement that leave the data of a database as it is.
_HARMLESS: Final = frozenset(Kind) - {
    Kind.WRITE,
    Kind.COPY_IN,
    Kind.EXECUTE,
    Kind.PREPARE,
    Kind.PREPARE_TRANSACTION,
}
_SEQUENCES: Final = frozenset({"nextval", "setval"})
#: Messages that the server answers to the end.
_ENDED_BY_READY: Final = frozenset({FUNCTION_CALL, QUERY, SYNC})
_ENDS_DATA: Final = frozenset({COPY_DONE, COPY_FAIL})
#: Messages that may name a run-time parameter.
_MAY_SET: Final = frozenset({BIND, PARSE, QUERY})


class DirectSession:
    """A server's session that one client has for itself.

    Args:
        client: The client.
        reported: The parameters that the session reported when it began.
        may_write: Tells whether a statement that reads may write by what it calls.
        number_of: Tells which client has the session of a process id on the server; any other is its own.

    Attributes:
        out: Bytes for the server.
        make_room: Called when more is to come than fits into ``out``.
        status: The transaction status it reported last.
        changed: Whether the client has, or may have, changed the database. Sequences count.
        has_timeouts: Whether the client has, or may have, set a timeout that ends its statements or transactions.
        left: What the client may have left with the session that no transaction ends, and the statement that did.
        brought: What it had of that on the session before.
    """

    def __init__(
        self,
        client: Client,
        reported: Mapping[str, str],
        may_write: Callable[[Statement], bool],
        number_of: Callable[[int], int] = lambda pid: pid,
    ) -> None:
        self.client = client
        self.out = bytearray()
        self.make_room: Callable[[], None] = lambda: None
        self.status = "I"
        self.changed = False
        self.left: dict[str, str] = {}
        self.has_timeouts = any(name.endswith("_timeout") for name in client.parameters.effective)
        self._may_write = may_write
        self._number_of = number_of
        self._prepared: set[Prepared] = set()
        self._unnamed: Prepared | None = None
        # What each ParseComplete means (None: the client's own), and which of all that was asked ends its pipeline.
        self._parses: deque[tuple[int, Prepared | None]] = deque()
        self._asked: deque[int] = deque()  # messages that the server has not answered to the end, and ends of data
        self._last_asked = 0  # how many those were in all
        self._takes_data = False  # of a COPY; meanwhile it answers no Sync
        self._has_ended = False
        self._text: Text | None = None  # of the last query
        self._hidden = 0  # ReadyForQuery that the client must not see
        self._buffer = bytearray()
        for name, value in reported.items():
            if client.reported.get(name) != value and name.lower() not in client.parameters.effective:
                client.reported[name] = value
                client.send(wire.parameter_status(name, value))
        begun_with = {name: value for name, value in client.parameters.startup.items() if name != "client_encoding"}
        channels = sorted(text_of(channel, client.encoding) for channel in client.channels)
        self.brought = frozenset(f"LISTEN {channel}" for channel in channels)
        adopt = [f"LISTEN {in_ascii(quote_name(channel))}" for channel in channels]
        adopt.append(parameters.switch(begun_with, client.parameters.effective))
        if any(adopt):
            self.out += wire.query(";".join(adopt))
            self._hidden += 1

    @property
    def is_idle(self) -> bool:
        """Whether the session is between transactions, and nothing is under way."""
        return self.status == "I" and not self.is_awaited and not self._hidden

    @property
    def is_awaited(self) -> bool:
        """Whether the client is still to get an answer."""
        return not _ENDED_BY_READY.isdisjoint(self._asked)

    # -- From the client

    def take(self, unit: list[Message]) -> None:
        """Pass a unit on."""
        for message in unit:
            if isinstance(message, Stored):
                for part in message.store.take():
                    self.out += part
                    self.make_room()
            else:
                self._ask(message.kind)
                try:
                    self.out += self._translated(message)
                except wire.ProtocolViolation:
                    self.out += message.encoded  # the server will say what is wrong with it

    def end(self) -> None:
        """Say that the client sends no more; the server ends the session when it has answered all."""
        if not self._has_ended:
            self.out += wire.TERMINATE
            self._has_ended = True

    def _ask(self, kind: int) -> None:
        """Note what a message has the server do."""
        if kind in _ENDS_DATA:
            self._takes_data = False
        elif kind not in _ENDED_BY_READY or (kind == SYNC and self._takes_data):
            return
        self._asked.append(kind)
        self._last_asked += 1

    def _answered(self) -> None:
        while self._asked and self._asked.popleft() in _ENDS_DATA:
            pass

    def _begins_copy(self) -> None:
        """Forget the Sync behind an Execute, which the server ignores while it takes data (54.2.6)."""
        while self._asked and self._asked[0] == SYNC:
            self._asked.popleft()
        self._takes_data = _ENDS_DATA.isdisjoint(self._asked)

    def _translated(self, message: Message) -> bytes:
        kind, body = message
        if kind in _MAY_SET:
            self.has_timeouts |= b"_timeout" in body
        if kind == PARSE:
            return self._parse(body)
        if kind == BIND:
            portal, after = wire.cstring(body)
            name, after = wire.cstring(body, after)
            prepared = self.client.statements.get(name[:NAME_LENGTH])
            self._text = prepared.text if prepared is not None else None
            if prepared is not None and prepared.statement is not None:
                self.client.runs(prepared.statement.text[:2_000])
            before, server_name = self._statement(name)
            return before + wire.message(b"B", portal + b"\0" + server_name + b"\0" + body[after:])
        if kind in {DESCRIBE, CLOSE} and body[:1] == b"S":
            name, after = wire.cstring(body, 1)
            if kind == CLOSE:
                self.client.statements.pop(name[:NAME_LENGTH], None)
                server_name = self.client.server_name(name) if name else b""
                return wire.message(b"C", b"S" + server_name + b"\0" + body[after:])
            before, server_name = self._statement(name)
            return before + wire.message(b"D", b"S" + server_name + b"\0" + body[after:])
        if kind == QUERY:
            return self._query(body)
        return message.encoded

    def _parse(self, body: bytes) -> bytes:
        name, prepared = names.prepare(self.client, body, None)
        self._text = prepared.text
        self.client.statements[name] = prepared
        self._see(prepared.statement)
        self._note(prepared)
        self._parses.append((self._last_asked, None))
        return prepared.parse

    def _statement(self, name: bytes) -> tuple[bytes, bytes]:
        """Return what to send before a statement is used, and its name on the server."""
        prepared = self.client.statements.get(name[:NAME_LENGTH])
        if prepared is None:
            return b"", self.client.server_name(name) if name else b""
        if len(name) > NAME_LENGTH:
            self.client.server_name(name)  # errors have it as it was said last
        if prepared in self._prepared if prepared.name else prepared is self._unnamed:
            return b"", prepared.name
        self._see(prepared.statement)
        self._note(prepared)
        self._parses.append((self._last_asked, prepared))
        return prepared.parse, prepared.name

    def _see(self, statement: Statement | None) -> None:
        """Note whether *statement* leaves the database as it is, and what it leaves with the session.

        It was prepared or sent, so it may be executed.
        """
        if statement is not None and (what := leftovers.may_leave(statement)):
            self.left[what] = statement.text
        if (
            statement is None
            or statement.kind not in _HARMLESS
            or not _SEQUENCES.isdisjoint(statement.calls)
            or self._may_write(statement)
        ):
            self.changed = True

    def _note(self, prepared: Prepared) -> None:
        if prepared.name:
            self._prepared.add(prepared)
        else:
            self._unnamed = prepared

    def _query(self, body: bytes) -> bytes:
        text, _ = wire.cstring(body)
        self.client.statements.pop(b"", None)
        self.client.runs(text[:2_000])
        parts = texts.parts(self.client.readable(text))
        for statement, _ in parts:
            self._see(statement)
        self._text = names.text_for_server(self.client, text, parts, None)
        return wire.query(self._text.sent)

    def _skip(self) -> None:
        """Forget what the server does not prepare after an error: the rest of a pipeline."""
        failed = self._last_asked - len(self._asked)
        while self._parses and self._parses[0][0] <= failed:
            _, prepared = self._parses.popleft()
            if prepared is not None:
                self._prepared.discard(prepared)
                self._unnamed = None if prepared is self._unnamed else self._unnamed

    # -- From the server

    def receive(self, data: bytes) -> None:
        """Pass on what the server says."""
        buffer = self._buffer
        buffer += data
        position = run = 0
        while len(buffer) - position >= 5:
            end = position + 1 + _HEADER.unpack_from(buffer, position + 1)[0]
            if end > len(buffer):
                break
            kind = buffer[position]
            if self._hidden or kind in b"1AEGNSZ":
                self.client.out += buffer[run:position]
                self.client.out += self._shown(kind, bytes(buffer[position:end]))
                run = end
            position = end
        self.client.out += buffer[run:position]
        del buffer[:position]

    def _shown(self, kind: int, message: bytes) -> bytes:
        """Return what the client sees of *message*."""
        if kind == 90:  # ReadyForQuery
            if self._hidden:
                self._hidden -= 1
                return b""
            self.status = chr(message[5])
            self._answered()
            return message
        if kind == 83:  # ParameterStatus
            name, value = (part.decode("utf-8", "replace") for part in message[5:-1].split(b"\0"))
            if self.client.reported.get(name) == value:
                return b""
            self.client.reported[name] = value
            return message
        if self._hidden:
            return b""
        if kind == 65:  # NotificationResponse: drivers compare who says it with what they were told to be
            number = self._number_of(wire.int32(message, 5))
            return wire.message(b"A", wire.pack_int32(number) + message[9:])
        if kind == 71:  # CopyInResponse
            self._begins_copy()
        if kind == 49 and self._parses:  # ParseComplete
            return b"" if self._parses.popleft()[1] is not None else message
        if kind == 69:
            self._skip()
        if kind not in {69, 78}:
            return message
        message = own_words(self.client, message)
        return self._text.repositioned(message) if self._text is not None and self._text.replaced else message

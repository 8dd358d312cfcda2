"""The extended query protocol: Parse, Bind, Describe, Execute and Close, up to Sync or Flush (54.2.3).

The rule: what a client sends before it waits goes to the server in as few segments as possible, each with a Sync of its
own that the client never hears of. A segment ends before a statement that the sandbox answers itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import control, copying, parameters
from pytest_chatdify_db.sandbox.client import (
    BIND,
    CLOSE,
    DESCRIBE,
    EXECUTE,
    PARSE,
    Client,
    Copying,
    Message,
    Portal,
    Prepared,
    bound_values,
)
from pytest_chatdify_db.sandbox.relay import Parsing, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.simple import SPLITS
from pytest_chatdify_db.sandbox.sql import Kind, Statement

_NO_UNNAMED: Final = wire.error("26000", "unnamed prepared statement does not exist")


@dataclass(slots=True)
class Segment:
    """Messages that go to the server together.

    Args:
        relay: Takes the answer to the client.
        data: The messages.
        parses: The statements they prepare.
        executed: The portals they execute.
        opened: The names of the portals they bind.
    """

    relay: Relay
    data: bytearray = field(default_factory=bytearray)
    parses: list[Parsing] = field(default_factory=list)
    executed: list[Portal] = field(default_factory=list)
    opened: list[bytes] = field(default_factory=list)


def run(session: SharedSession, client: Client, unit: list[Message]) -> Work:
    """Run the messages of *unit*."""
    if client.skips:
        return False
    client.mid_pipeline = True
    pipeline = _Pipeline(session, client)
    for message in unit:
        if not (yield from pipeline.take(message)):
            client.skips = True
            return False
    if not (yield from pipeline.flush()):
        client.skips = True
    return not client.skips


class _Pipeline:
    """The segment under construction, and the client it is for."""

    def __init__(self, session: SharedSession, client: Client) -> None:
        self.session = session
        self.client = client
        self.segment = self._new_segment()

    def _new_segment(self) -> Segment:
        return Segment(Relay(self.client, self.session.prepared))

    def take(self, message: Message) -> Work:
        """Add one message, or send what there is and answer it."""
        kind, body = message
        if kind == EXECUTE:
            return (yield from self._execute(message))
        if kind == PARSE:
            objection = self._parse(body)
        elif kind == BIND:
            objection = self._bind(body)
        else:
            objection = self._describe_or_close(message)
        if objection is None:
            return True
        return (yield from self._object(objection))

    def _object(self, objection: bytes) -> Work:
        """Fail, once what came before has been answered."""
        return (yield from self.flush()) and self.session.fail(self.client, objection)

    def flush(self) -> Work:
        """Send the segment."""
        segment, self.segment = self.segment, self._new_segment()
        if not segment.data:
            return True
        statements = [portal.statement for portal in segment.executed if portal.statement]
        changes = [
            change
            for portal in segment.executed
            if portal.statement
            for change in parameters.changes(portal.statement, portal.values)
        ]
        done = yield from self.session.ask(self.client, segment.data + wire.SYNC, segment.relay, statements, changes)
        if done:
            for name in segment.opened:
                self.client.cursors.add(name)
                self.session.history.opened_cursor(self.client.number)
        else:
            self._take_back(segment)
        return done

    def _take_back(self, segment: Segment) -> None:
        """Forget statements that the server did not come to prepare."""
        for parsing in reversed(segment.parses):
            if parsing.is_done or parsing.is_hidden:
                continue
            if parsing.previous is None:
                self.client.statements.pop(parsing.name, None)
            else:
                self.client.statements[parsing.name] = parsing.previous

    # -- One message each

    def _parse(self, body: bytes) -> bytes | None:
        client = self.client
        name, prepared = client.prepare(body)
        if prepared.statement is not None or not prepared.is_empty:
            if (objection := self._failed(prepared.statement)) is not None:
                return objection
        previous = client.statements.get(name)
        if name and previous is not None:
            self._ensure(previous)  # so that the server says that it exists already
        self._add_parse(Parsing(name, prepared, previous))
        client.statements[name] = prepared
        return None

    def _bind(self, body: bytes) -> bytes | None:
        portal, after = wire.cstring(body)
        name, after = wire.cstring(body, after)
        prepared = self.client.statements.get(name)
        if prepared is None and not name:
            return _NO_UNNAMED
        if prepared is not None and (objection := self._failed(prepared.statement)) is not None:
            return objection
        server_name = self._server_name(name)
        bind = wire.message(b"B", portal + b"\0" + server_name + b"\0" + body[after:])
        values: tuple[str | None, ...] = ()
        if prepared is not None and prepared.statement is not None and "set_config" in prepared.statement.calls:
            values = bound_values(body, after)
        self.client.portals[portal] = Portal(prepared, values, bind)
        self.segment.data += bind
        if portal:
            self.segment.opened.append(portal)
        return None

    def _describe_or_close(self, message: Message) -> bytes | None:
        kind, body = message
        name, _ = wire.cstring(body, 1)
        if body[:1] == b"S":
            if kind == DESCRIBE and not name and name not in self.client.statements:
                return _NO_UNNAMED
            server_name = self._server_name(name) if kind == DESCRIBE else self.client.prefix + name
            if kind == CLOSE and (prepared := self.client.statements.pop(name, None)):
                server_name = prepared.name
                self.session.closed(prepared)
            message = Message(kind, b"S" + server_name + b"\0")
        elif kind == CLOSE:
            self.client.portals.pop(name, None)
            self.client.cursors.discard(name)
        self.segment.data += message.encoded
        return None

    def _execute(self, message: Message) -> Work:
        client, session = self.client, self.session
        name, _ = wire.cstring(message.body)
        portal = client.portals.get(name)
        if portal is None and not name:
            return (yield from self._object(wire.error("34000", 'portal "" does not exist')))
        statement = portal.statement if portal else None
        if portal is None or statement is None:
            self.segment.data += message.encoded
            return True
        client.last_sql = statement.text[:2_000]
        if statement.kind in SPLITS:
            return (yield from self.flush()) and (yield from self._execute_split(portal, statement, message))
        is_sole = client.transaction is None and not self.segment.executed
        if (objection := session.objection(client, statement, is_sole=is_sole)) is not None:
            return (yield from self._object(objection))
        self.segment.relay.notice += session.warning(client, statement, is_sole=is_sole)
        self.segment.executed.append(portal)
        self.segment.data += message.encoded
        return True

    def _execute_split(self, portal: Portal, statement: Statement, message: Message) -> Work:
        if statement.kind is not Kind.COPY_IN:
            return (yield from control.answer(self.session, self.client, statement, is_sole=False))
        waits = Copying(portal.bind + message.encoded, statement, [], is_extended=True)
        return (yield from copying.begin(self.session, self.client, waits))

    # -- Statements on the server

    def _failed(self, statement: Statement | None) -> bytes | None:
        transaction = self.client.transaction
        if transaction is None or not transaction.failed:
            return None
        return self.session.objection(self.client, statement)

    def _server_name(self, name: bytes) -> bytes:
        """Return the server's name of the client's statement, which is there before it is used."""
        prepared = self.client.statements.get(name)
        if prepared is None:
            return self.client.prefix + name  # the server will say that it does not exist
        self._ensure(prepared)
        return prepared.name

    def _ensure(self, prepared: Prepared) -> None:
        """Prepare a statement that the session does not have: another one had it, or another client was here."""
        pending = [parsing.prepared for parsing in self.segment.parses if parsing.prepared.name == prepared.name]
        if prepared is pending[-1] if pending else self.session.has(prepared):
            return
        self._add_parse(Parsing(b"", prepared, is_hidden=True))

    def _add_parse(self, parsing: Parsing) -> None:
        self.segment.parses.append(parsing)
        self.segment.relay.parses.append(parsing)
        self.segment.data += parsing.prepared.parse

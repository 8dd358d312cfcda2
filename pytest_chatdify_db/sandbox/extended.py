"""The extended query protocol: Parse, Bind, Describe, Execute and Close, up to Sync or Flush (54.2.3).

The rule: what a client sends before it waits goes to the server in as few segments as possible, each with a Sync of its
own that the client never hears of. A segment ends before a statement that the sandbox answers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, control, copying, empty, names, parameters, refusals, signals
from pytest_chatdify_db.sandbox.backend import Exchange
from pytest_chatdify_db.sandbox.client import Client, Copying, Portal, Prepared
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH
from pytest_chatdify_db.sandbox.messages import BIND, CLOSE, DESCRIBE, EXECUTE, PARSE, Message, bound_values
from pytest_chatdify_db.sandbox.relay import Parsing, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.simple import SPLITS
from pytest_chatdify_db.sandbox.statement import TRANSACTIONAL, Kind, Statement, overlays
from pytest_chatdify_db.sandbox.texts import shown

_NO_PORTAL: Final = wire.error("34000", 'portal "" does not exist')
_SEVERAL: Final = wire.error("42601", "cannot insert multiple commands into a prepared statement")
_NO_UNNAMED: Final = wire.error("26000", "unnamed prepared statement does not exist")

#: Functions whose arguments the sandbox must know.
_TOLD: Final = frozenset({"set_config", "pg_notify"})


@dataclass(slots=True)
class Segment:
    """Messages that go to the server together.

    Args:
        relay: Takes the answer to the client.
        data: The messages.
        parses: The statements they prepare.
        executed: The portals they execute.
        reads_cursor: Whether they execute a cursor that SQL has declared.
        bound: The client's names of the portals they bind, in order, and what each was before.
        opened: Those of them that live on and are known by a name on the server.
        closed: The statements they close, under the client's names, and how many answers come before.
        asked: How many answers they will have, without those to Describe.
    """

    relay: Relay
    data: bytearray = field(default_factory=bytearray)
    parses: list[Parsing] = field(default_factory=list)
    executed: list[Portal] = field(default_factory=list)
    reads_cursor: bool = False
    bound: list[tuple[bytes, Portal | None]] = field(default_factory=list)
    opened: list[bytes] = field(default_factory=list)
    closed: list[tuple[bytes, Prepared, int]] = field(default_factory=list)
    asked: int = 0


def run(session: SharedSession, client: Client, unit: list[Message]) -> Work:
    """Run the messages of *unit*."""
    if client.skips:
        return False
    client.mid_pipeline = client.mid_pipeline or EXECUTE in [message.kind for message in unit]
    pipeline = _Pipeline(session, client)
    for index, message in enumerate(unit):
        try:
            goes_on = yield from pipeline.take(message, unit[index + 1 :] if message.kind == BIND else ())
        except wire.ProtocolViolation as problem:
            goes_on = yield from pipeline.object(wire.error("08P01", str(problem)))
        if not goes_on:
            client.skips = True
            return False
        if client.copying is not None and message is not unit[-1]:
            yield from copying.interrupted(session, client, client.copying, [], unit[index + 1].kind)
            return False
    client.skips = not (yield from pipeline.send(pipeline.segment))
    return not client.skips


class _Pipeline:
    """The segment under construction, and the client it is for."""

    def __init__(self, session: SharedSession, client: Client) -> None:
        self.session = session
        self.client = client
        self.segment = self._new_segment()

    def _new_segment(self) -> Segment:
        return Segment(Relay(self.client, self.session.statements.prepared))

    def take(self, message: Message, following: Sequence[Message]) -> Work:
        """Add one message, or send what there is and answer it."""
        kind, body = message
        if (client := self.client).has_local or kind == PARSE:
            if (answered := empty.answer(client, message)) is not None:
                return (yield from self._answer(answered))
        if kind == EXECUTE:
            return (yield from self._execute(message))
        if kind == PARSE:
            objection = yield from self._parse(body)
        elif kind == BIND:
            lives_on = not _is_executed(following)
            if not (yield from self._make_way(body, lives_on=lives_on)):
                return False
            objection = self._bind(body, lives_on=lives_on)
        elif body[:1] == b"S":
            objection = self._describe_or_close_statement(kind, body)
        elif body[:1] == b"P":
            if kind == DESCRIBE and self._is_without_rows_in_failed(body):
                return (yield from self._answer(lambda: wire.NO_DATA))
            objection = self._describe_or_close_portal(kind, body)
        else:
            self.segment.data += message.encoded  # the server will say that there is no such thing
            objection = None
        if objection is None:
            return True
        return (yield from self.object(objection))

    def _answer(self, answer: Callable[[], bytes]) -> Work:
        """Answer in the place of the server, once what came before has been answered."""
        if not (yield from self.flush()):
            return False
        self.client.send(answer())
        return True

    def object(self, objection: bytes) -> Work:
        """Fail, once what came before has been answered."""
        return (yield from self.flush()) and self.session.fail(self.client, objection)

    def flush(self) -> Work:
        """Send what there is, and begin another segment."""
        segment, self.segment = self.segment, self._new_segment()
        return (yield from self.send(segment))

    def send(self, segment: Segment) -> Work:
        """Send a segment, and note what the server did."""
        if not segment.data:
            return True
        portals = [(portal.statement, portal.values) for portal in segment.executed if portal.statement]
        statements = [statement for statement, _ in portals]
        more = [each for each in portals if not each[0].is_plain_read]
        changes = [change for statement, values in more for change in parameters.changes(statement, values)]
        told = [signal for statement, values in more for signal in signals.signals(statement, values)]
        request = segment.data + wire.SYNC
        done = yield from self.session.ask(self.client, request, segment.relay, statements, changes, told)
        for _, prepared, at in segment.closed:
            if done or at < segment.relay.answered:
                self.session.statements.closed(prepared)
        if done:
            for name in segment.opened:
                self.session.opened_cursor(self.client, name)
        else:
            self._take_back(segment)
        return done

    def _take_back(self, segment: Segment) -> None:
        """Forget what the server did not come to, and portals that went with its rollback."""
        answered = segment.relay.answered
        for parsing in reversed(segment.parses):
            if parsing.is_done or parsing.is_hidden:
                continue
            if parsing.previous is None or (not parsing.name and parsing.at == answered):
                self.client.statements.pop(parsing.name, None)
            else:
                self.client.statements[parsing.name] = parsing.previous
        never_there = [parsing.prepared for parsing in segment.parses if not parsing.is_done]
        for name, prepared, at in segment.closed:
            if at >= answered and prepared not in never_there:
                self.client.statements.setdefault(name, prepared)
        bound, not_bound = segment.bound[: segment.relay.bound], segment.bound[segment.relay.bound :]
        for name, previous_portal in reversed(not_bound):
            if previous_portal is None or not name:  # an unnamed one gives way before the server looks further
                self.client.portals.pop(name, None)
            else:
                self.client.portals[name] = previous_portal
        # A name is taken until the transaction ends, although it has failed.
        taken = {name for name, _ in bound} if self.client.in_transaction else set()
        for name in segment.opened:
            if name not in taken:
                self.session.cursors.closed(self.client, name)

    # -- One message each

    def _parse(self, body: bytes) -> Generator[Exchange, None, bytes | None]:
        """Add a Parse, or return the error to answer it with; whichever it is, the unnamed statement before is gone."""
        client, session = self.client, self.session
        name, prepared = names.prepare(client, body, session.cursors)
        previous = client.statements.get(name) if name else client.statements.pop(name, None)
        if prepared.statement is not None or not prepared.is_empty:
            if (objection := self._failed(prepared.statement)) is not None:
                if not (yield from self.flush()):
                    return b""  # it has been said
                text, _ = wire.cstring(prepared.rest)
                if (error := (yield from session.syntax_error(client, text, is_heard=True))) is not None:
                    return prepared.text.repositioned(error) if prepared.text is not None else error
                return _SEVERAL if prepared.statement is None else objection
        if prepared.statement is not None and session.has_temporary:
            if (error := admission.foreign_table(session, client, prepared.statement)) is not None:
                return error
        if prepared.statement is not None and prepared.statement.is_doubtful:
            text, _ = wire.cstring(prepared.rest)
            if (error := (yield from session.syntax_error(client, text))) is not None:
                return error
        if name and previous is not None:
            self._ensure(previous)  # so that the server says that it exists already
        self._add_parse(Parsing(name, prepared, previous))
        client.statements[name] = prepared
        return None

    def _bind(self, body: bytes, *, lives_on: bool) -> bytes | None:
        client, cursors = self.client, self.session.cursors
        portal_name, after = wire.cstring(body)
        name, after = wire.cstring(body, after)
        portal, prepared = portal_name[:NAME_LENGTH], client.statements.get(name[:NAME_LENGTH])
        if prepared is None and not name:
            return _NO_UNNAMED
        if client.transaction is not None and client.transaction.failed:
            if (objection := self._bind_in_failed(portal_name, name, prepared, body[after:])) is not None:
                return objection
        statement_name = self._server_name(name, prepared)
        if (portal or lives_on) and portal not in client.cursors:
            cursors.opened(client, portal, is_private=not portal)
            self.segment.opened.append(portal)
        rest = statement_name + b"\0" + body[after:]
        bind = wire.message(b"B", cursors.server_name(client, portal_name) + b"\0" + rest)
        values: tuple[str | None, ...] = ()
        if prepared is not None and prepared.statement is not None and not _TOLD.isdisjoint(prepared.statement.calls):
            values = bound_values(body, after)
        self.segment.bound.append((portal, client.portals.get(portal)))
        client.portals[portal] = Portal(prepared, values, bind)
        self._add(bind, prepared)
        return None

    def _make_way(self, body: bytes, *, lives_on: bool) -> Work:
        """Send what cannot go together with a Bind, and close the unnamed portal where it takes its place."""
        if self.segment.executed and self._overlays(body) and not (yield from self.flush()):
            return False
        if body[:1] == b"\0" and (b"" in self.client.cursors or (lives_on and b"" in self.client.portals)):
            if not (yield from self.flush()):
                return False
            self.session.cursors.close_unnamed(self.client)
        return True

    def _overlays(self, body: bytes) -> bool:
        """Return whether what a Bind is about is not to travel with what the segment executes."""
        name, _ = wire.cstring(body, wire.cstring(body)[1])
        prepared = self.client.statements.get(name[:NAME_LENGTH])
        if prepared is None or prepared.statement is None:
            return False
        return overlays(prepared.statement, (each.statement for each in self.segment.executed if each.statement))

    def _bind_in_failed(self, portal: bytes, name: bytes, prepared: Prepared | None, rest: bytes) -> bytes | None:
        """Return the error of a Bind in a failed transaction, as ``exec_bind_message`` looks for it."""
        if prepared is None:
            return wire.error("26000", f'prepared statement "{shown(name)}" does not exist')
        if (miscounted := admission.miscounted(name, prepared, rest)) is not None:
            return miscounted
        if (objection := self._failed(prepared.statement)) is not None:
            return objection
        if portal[:NAME_LENGTH] in self.client.cursors:
            return wire.error("42P03", f'cursor "{shown(portal)}" already exists')
        return None

    def _describe_or_close_statement(self, kind: int, body: bytes) -> bytes | None:
        client = self.client
        name, after = wire.cstring(body, 1)
        prepared = client.statements.get(name[:NAME_LENGTH])
        if kind == DESCRIBE:
            if prepared is None and not name:
                return _NO_UNNAMED
            if prepared is not None and (objection := self._has_rows_in_failed(prepared)) is not None:
                return objection
            server_name = self._server_name(name, prepared)
        else:
            server_name = client.server_name(name) if name else b""
            if prepared is not None:
                del client.statements[name[:NAME_LENGTH]]
                self.segment.closed.append((name[:NAME_LENGTH], prepared, self.segment.asked))
            self.segment.asked += 1
        self.segment.data += Message(kind, b"S" + server_name + b"\0" + body[after:]).encoded
        return None

    def _describe_or_close_portal(self, kind: int, body: bytes) -> bytes | None:
        client, cursors = self.client, self.session.cursors
        called, after = wire.cstring(body, 1)
        name = called[:NAME_LENGTH]
        portal = client.portals.get(name)
        if kind == DESCRIBE and portal is None and not name:
            return _NO_PORTAL
        if kind == DESCRIBE and (objection := self._undone(name)) is not None:
            return objection
        if kind == DESCRIBE and (unread := self._is_unread_in_failed(name)) is not None:
            return unread
        if kind == DESCRIBE and portal is not None and portal.prepared is not None:
            if (objection := self._has_rows_in_failed(portal.prepared)) is not None:
                return objection
        server_name = cursors.server_name(client, called)
        self.segment.data += Message(kind, b"P" + server_name + b"\0" + body[after:]).encoded
        if kind == CLOSE:
            client.portals.pop(name, None)
            self.segment.asked += 1
            cursors.closed(client, name)
            if name in self.segment.opened:
                self.segment.opened.remove(name)
        return None

    def _execute(self, message: Message) -> Work:
        client, session = self.client, self.session
        called, after = wire.cstring(message.body)
        name = called[:NAME_LENGTH]
        portal = client.portals.get(name)
        if portal is None and not name:
            return (yield from self.object(_NO_PORTAL))
        if (undone := self._undone(name)) is not None:
            return (yield from self.object(undone))
        if (unread := self._is_unread_in_failed(name)) is not None:
            return (yield from self.object(unread))
        if portal is not None and portal.has_run:
            return (yield from self.object(self._failed(portal.statement) or refusals.has_run(name)))
        statement = portal.statement if portal else None
        execute = Message(EXECUTE, session.cursors.server_name(client, called) + b"\0" + message.body[after:]).encoded
        if portal is None or statement is None:
            self.segment.reads_cursor |= name in client.cursors
            self._add(execute, None)
            return True
        client.runs(statement.text[:2_000])
        if statement.kind in SPLITS:
            return (yield from self.flush()) and (yield from self._execute_split(name, portal, statement, execute))
        is_sole = session.is_first(client) and not self.segment.executed and not self.segment.reads_cursor
        if (objection := admission.objection(session, client, statement, is_sole=is_sole)) is not None:
            return (yield from self.object(objection))
        if warning := admission.warning(client, statement, is_sole=is_sole):
            self.segment.relay.notice, self.segment.relay.notice_at = warning, self.segment.asked
        self.segment.executed.append(portal)
        self._add(execute, portal.prepared)
        return True

    def _execute_split(self, name: bytes, portal: Portal, statement: Statement, execute: bytes) -> Work:
        portal.has_run = True
        if statement.kind is not Kind.COPY_IN:
            return (yield from self._control(name, statement))
        # An unnamed statement and portal do not outlive the queries in between; others are there when they come again.
        parse = portal.prepared.parse if portal.prepared is not None and not portal.prepared.name else b""
        bound, _ = wire.cstring(portal.bind, 5)
        close = wire.message(b"C", b"P" + bound + b"\0")
        return (
            yield from copying.begin(
                self.session, self.client, Copying(parse + close + portal.bind + execute, statement)
            )
        )

    def _control(self, name: bytes, statement: Statement) -> Work:
        client, session = self.client, self.session
        portal, cursor = client.portals[name], client.cursors.get(name)
        closes_others = statement.kind is Kind.CLOSE_ALL
        if closes_others:
            client.cursors.pop(name, None)
        done = yield from control.answer(session, client, statement, is_sole=session.is_first(client))
        if closes_others:
            client.portals[name] = portal
            if cursor is not None:
                client.cursors[name] = cursor
        if done and statement.kind not in TRANSACTIONAL and statement.kind is not Kind.DISCARD_ALL:
            session.begin(client).executes = True
        return done

    def _add(self, data: bytes, prepared: Prepared | None) -> None:
        """Add a message that is about *prepared*, and has one answer."""
        segment = self.segment
        if prepared is not None and prepared.text is not None:
            segment.relay.texts[segment.asked] = prepared.text
        segment.data += data
        segment.asked += 1

    # -- Statements on the server

    def _failed(self, statement: Statement | None) -> bytes | None:
        transaction = self.client.transaction
        if transaction is None or not transaction.failed:
            return None
        return admission.objection(self.session, self.client, statement)

    def _undone(self, portal: bytes) -> bytes | None:
        """Return the error that the portal was closed by another client's rollback."""
        cursor = self.client.cursors.get(portal)
        return refusals.cursor_undone(self.client.label, cursor.undone_by) if cursor and cursor.undone_by else None

    def _is_unread_in_failed(self, name: bytes) -> bytes | None:
        """Return the error that a cursor which SQL has declared is not read in a failed transaction."""
        is_declared = name in self.client.cursors and name not in self.client.portals
        return self._failed(None) if is_declared else None

    def _has_rows_in_failed(self, prepared: Prepared) -> bytes | None:
        """Return the error that the description of rows is in a failed transaction; that of no rows is given."""
        statement = prepared.statement
        return self._failed(statement) if statement is not None and statement.returns_rows else None

    def _is_without_rows_in_failed(self, body: bytes) -> bool:
        """Return whether Describe is of a portal that outlives the failure of its transaction, but on the server."""
        name, _ = wire.cstring(body, 1)
        portal = self.client.portals.get(name[:NAME_LENGTH])
        prepared = portal.prepared if portal is not None else None
        transaction = self.client.transaction
        has_failed = transaction is not None and transaction.failed
        return has_failed and prepared is not None and self._has_rows_in_failed(prepared) is None

    def _server_name(self, name: bytes, prepared: Prepared | None) -> bytes:
        """Return the server's name of the client's statement, which is there before it is used."""
        if prepared is None:
            return self.client.server_name(name)  # the server will say that it does not exist
        self._ensure(prepared)
        return prepared.name

    def _ensure(self, prepared: Prepared) -> None:
        """Prepare a statement that the session does not have: another one had it, or another client was here."""
        pending = [parsing.prepared for parsing in self.segment.parses if parsing.prepared.name == prepared.name]
        if prepared is pending[-1] if pending else self.session.statements.has(prepared):
            return
        self.session.statements.make_room(prepared)
        self._add_parse(Parsing(b"", prepared, is_hidden=True))

    def _add_parse(self, parsing: Parsing) -> None:
        parsing.at = self.segment.asked
        self.segment.parses.append(parsing)
        self.segment.relay.parses.append(parsing)
        self._add(parsing.prepared.parse, parsing.prepared)


def _is_executed(following: Sequence[Message]) -> bool:
    """Return whether the unnamed portal, just bound, or another in its place is executed to its end in this unit."""
    for kind, body in following:
        if kind == EXECUTE and body[:1] == b"\0":
            return body[1:5] == bytes(4)
    return False

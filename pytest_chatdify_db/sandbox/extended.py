"""The extended query protocol: Parse, Bind, Describe, Execute and Close, up to Sync or Flush (54.2.3).

The rule: what a client sends before it waits goes to the server in as few segments as possible, each with a Sync of its
own that the client never hears of. A segment ends before a statement that the sandbox answers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, control, copying, empty, failed, names, refusals
from pytest_chatdify_db.sandbox.backend import Exchange
from pytest_chatdify_db.sandbox.client import Client, Copying, Portal, Prepared
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH
from pytest_chatdify_db.sandbox.messages import BIND, CLOSE, EXECUTE, PARSE, Message, bound_values
from pytest_chatdify_db.sandbox.relay import Parsing, Relay
from pytest_chatdify_db.sandbox.segment import Segment
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.simple import SPLITS
from pytest_chatdify_db.sandbox.statement import TRANSACTIONAL, Kind, Statement, overlays

_NO_PORTAL: Final = wire.error("34000", 'portal "" does not exist')
_SEVERAL: Final = wire.error("42601", "cannot insert multiple commands into a prepared statement")
_NO_UNNAMED: Final = wire.error("26000", "unnamed prepared statement does not exist")

#: Functions whose arguments the sandbox must know.
_TOLD: Final = frozenset({"set_config", "pg_notify"})


def run(session: SharedSession, client: Client, unit: list[Message]) -> Work:
    """Run the messages of *unit*."""
    if client.skips:
        return False
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
    client.skips = not (yield from pipeline.flush())
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
        objection = None
        if kind == PARSE:
            objection = yield from self._parse(body)
        elif kind == BIND:
            lives_on = not _is_executed(following)
            if not (yield from self._make_way(body, lives_on=lives_on)):
                return False
            objection = self._bind(body, lives_on=lives_on)
        elif (what := body[:1]) not in (b"S", b"P"):
            self.segment.data += message.encoded  # the server will say that there is no such thing
        elif kind == CLOSE:
            (self._close_statement if what == b"S" else self._close_portal)(body)
        elif what == b"S":
            objection = self._describe_statement(body)
        elif failed.is_without_rows(client, wire.cstring(body, 1)[0][:NAME_LENGTH]):
            return (yield from self._answer(lambda: wire.NO_DATA))
        else:
            objection = self._describe_portal(body)
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
        return (yield from segment.send(self.session, self.client))

    # -- Statements

    def _parse(self, body: bytes) -> Generator[Exchange, None, bytes | None]:
        """Add a Parse, or return the error to answer it with; whichever it is, the unnamed statement before is gone."""
        client, session = self.client, self.session
        name, prepared = names.prepare(client, body, session.cursors)
        previous = client.statements.get(name) if name else client.statements.pop(name, None)
        if prepared.statement is not None or not prepared.is_empty:
            if (objection := failed.objection(client, prepared.statement)) is not None:
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
        self.segment.add_parse(Parsing(name, prepared, previous))
        client.statements[name] = prepared
        return None

    def _describe_statement(self, body: bytes) -> bytes | None:
        name, after = wire.cstring(body, 1)
        prepared = self.client.statements.get(name[:NAME_LENGTH])
        if prepared is None and not name:
            return _NO_UNNAMED
        if (objection := failed.description(self.client, prepared)) is not None:
            return objection
        self.segment.data += wire.message(b"D", b"S" + self._server_name(name, prepared) + b"\0" + body[after:])
        return None

    def _close_statement(self, body: bytes) -> None:
        client, segment = self.client, self.segment
        name, after = wire.cstring(body, 1)
        if (prepared := client.statements.pop(name[:NAME_LENGTH], None)) is not None:
            segment.closed.append((name[:NAME_LENGTH], prepared, segment.asked))
        server_name = client.server_name(name) if name else b""
        segment.add(wire.message(b"C", b"S" + server_name + b"\0" + body[after:]))

    def _server_name(self, name: bytes, prepared: Prepared | None) -> bytes:
        """Return the server's name of the client's statement, which is there before it is used."""
        if prepared is None:
            return self.client.server_name(name)  # the server will say that it does not exist
        self._ensure(prepared)
        return prepared.name

    def _ensure(self, prepared: Prepared) -> None:
        """Prepare a statement that the session does not have: another one had it, or another client was here."""
        pending = self.segment.prepares(prepared.name)
        if prepared is pending if pending is not None else self.session.statements.has(prepared):
            return
        self.session.statements.make_room(prepared)
        self.segment.add_parse(Parsing(b"", prepared, is_hidden=True))

    # -- Portals

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

    def _bind(self, body: bytes, *, lives_on: bool) -> bytes | None:
        client, cursors = self.client, self.session.cursors
        portal_name, after = wire.cstring(body)
        name, after = wire.cstring(body, after)
        portal, prepared = portal_name[:NAME_LENGTH], client.statements.get(name[:NAME_LENGTH])
        if prepared is None and not name:
            return _NO_UNNAMED
        if (objection := failed.binding(client, portal_name, name, prepared, body[after:])) is not None:
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
        self.segment.add(bind, prepared)
        return None

    def _describe_portal(self, body: bytes) -> bytes | None:
        client = self.client
        called, after = wire.cstring(body, 1)
        name = called[:NAME_LENGTH]
        portal = client.portals.get(name)
        if portal is None and not name:
            return _NO_PORTAL
        objection = self._unreadable(name) or failed.description(client, portal.prepared if portal else None)
        if objection is not None:
            return objection
        self.segment.data += wire.message(
            b"D", b"P" + self.session.cursors.server_name(client, called) + b"\0" + body[after:]
        )
        return None

    def _close_portal(self, body: bytes) -> None:
        client, cursors = self.client, self.session.cursors
        called, after = wire.cstring(body, 1)
        name = called[:NAME_LENGTH]
        self.segment.add(wire.message(b"C", b"P" + cursors.server_name(client, called) + b"\0" + body[after:]))
        client.portals.pop(name, None)
        cursors.closed(client, name)
        if name in self.segment.opened:
            self.segment.opened.remove(name)

    def _unreadable(self, name: bytes) -> bytes | None:
        """Return the error that a cursor has gone, or is not read in a failed transaction."""
        client = self.client
        return admission.undone_cursor(client, client.cursors.get(name)) or failed.reading(client, name)

    def _execute(self, message: Message) -> Work:
        client, session = self.client, self.session
        called, after = wire.cstring(message.body)
        name = called[:NAME_LENGTH]
        portal = client.portals.get(name)
        if portal is None and not name:
            return (yield from self.object(_NO_PORTAL))
        if (unreadable := self._unreadable(name)) is not None:
            return (yield from self.object(unreadable))
        if portal is not None and portal.has_run:
            return (yield from self.object(failed.objection(client, portal.statement) or refusals.has_run(name)))
        statement = portal.statement if portal else None
        execute = wire.message(b"E", session.cursors.server_name(client, called) + b"\0" + message.body[after:])
        client.mid_pipeline = True
        if portal is None or statement is None:
            self.segment.reads_cursor |= name in client.cursors
            self.segment.add(execute)
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
        self.segment.add(execute, portal.prepared)
        return True

    # -- Statements that the sandbox answers itself

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
            session.begin(client).executes = client.mid_pipeline = True
        return done


def _is_executed(following: Sequence[Message]) -> bool:
    """Return whether the unnamed portal, just bound, or another in its place is executed to its end in this unit."""
    for kind, body in following:
        if kind == EXECUTE and body[:1] == b"\0":
            return body[1:5] == bytes(4)
    return False

"""Messages of the extended protocol that go to the server together, and what a client has once they are answered.

The rule: a client's names stand for what it will have if all goes well; what the server did not come to is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import parameters, signals
from pytest_chatdify_db.sandbox.client import Client, Portal, Prepared
from pytest_chatdify_db.sandbox.cursors import Cursors
from pytest_chatdify_db.sandbox.relay import Parsing, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work


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

    def add(self, data: bytes, prepared: Prepared | None = None) -> None:
        """Add a message that is about *prepared*, and has one answer."""
        if prepared is not None and prepared.text is not None:
            self.relay.texts[self.asked] = prepared.text
        self.data += data
        self.asked += 1

    def add_parse(self, parsing: Parsing) -> None:
        """Add the Parse of a statement."""
        parsing.at = self.asked
        self.parses.append(parsing)
        self.relay.parses.append(parsing)
        self.add(parsing.prepared.parse, parsing.prepared)

    def prepares(self, name: bytes) -> Prepared | None:
        """Return the last statement that they prepare under the server's *name*."""
        return next((each.prepared for each in reversed(self.parses) if each.prepared.name == name), None)

    def send(self, session: SharedSession, client: Client) -> Work:
        """Send them with a Sync of their own, and note what the server did."""
        if not self.data:
            return True
        portals = [(portal.statement, portal.values) for portal in self.executed if portal.statement]
        statements = [statement for statement, _ in portals]
        more = [each for each in portals if not each[0].is_plain_read]
        changes = [change for statement, values in more for change in parameters.changes(statement, values)]
        told = [signal for statement, values in more for signal in signals.signals(statement, values)]
        done = yield from session.ask(client, self.data + wire.SYNC, self.relay, statements, changes, told)
        for _, prepared, at in self.closed:
            if done or at < self.relay.answered:
                session.statements.closed(prepared)
        if not done:
            self._take_back(client, session.cursors)
            return False
        for name in self.opened:
            session.opened_cursor(client, name)
        return True

    def _take_back(self, client: Client, cursors: Cursors) -> None:
        """Forget what the server did not come to, and portals that went with its rollback."""
        answered = self.relay.answered
        for parsing in reversed(self.parses):
            if parsing.is_done or parsing.is_hidden:
                continue
            if parsing.previous is None or (not parsing.name and parsing.at == answered):
                client.statements.pop(parsing.name, None)
            else:
                client.statements[parsing.name] = parsing.previous
        never_there = [parsing.prepared for parsing in self.parses if not parsing.is_done]
        for name, prepared, at in self.closed:
            if at >= answered and prepared not in never_there:
                client.statements.setdefault(name, prepared)
        bound, not_bound = self.bound[: self.relay.bound], self.bound[self.relay.bound :]
        for name, previous in reversed(not_bound):
            if previous is None or not name:  # an unnamed one gives way before the server looks further
                client.portals.pop(name, None)
            else:
                client.portals[name] = previous
        # A name is taken until the transaction ends, although it has failed.
        taken = {name for name, _ in bound} if client.in_transaction else set()
        for name in self.opened:
            if name not in taken:
                cursors.closed(client, name)

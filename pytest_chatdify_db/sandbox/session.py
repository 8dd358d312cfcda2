"""The one session that all clients of a test share: how the server is asked for what one of them wants.

The rule: the methods that need the server are generators. They yield what to ask and are resumed when it has answered,
so that the flow reads from top to bottom; a unit runs to its end before another client is served.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import constraints, effects, parameters, refusals
from pytest_chatdify_db.sandbox.backend import Backend, Exchange, Reply, Request
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.lexer import text_of
from pytest_chatdify_db.sandbox.parameters import Change
from pytest_chatdify_db.sandbox.relay import Relay
from pytest_chatdify_db.sandbox.server_session import ServerSession
from pytest_chatdify_db.sandbox.statement import MODE_PARAMETERS, Kind, Statement
from pytest_chatdify_db.sandbox.transactions import (
    READ_ONLY_END,
    Settings,
    Signal,
    Transaction,
)

#: Asks the server and says in the end whether all went well. Where not, the client has been told.
Work = Generator[Exchange, None, bool]

_FAIL: Final = wire.query("!")
#: SQLSTATE of a text that is not in its client's encoding.
_WRONG_BYTES: Final = frozenset({"22021", "22P05"})
_ERROR: Final = ord("E")
_NO_SUCH_THING: Final = "42704"
#: How many texts are remembered to be well-formed, and of what length.
_REMEMBERED: Final = 1_000


class Welcome(NamedTuple):
    """What the server has said of the parameters that a client came with.

    Args:
        reported: All that it reports, with those in force.
        startup: Those that differ from the server's own.
    """

    reported: Settings
    startup: Settings


class _Asked(NamedTuple):
    """A client's request, and what goes along with it.

    Args:
        exchange: All of it.
        before: The replies to what must succeed.
        behind: The replies to what comes after the request.
        values: The one with the parameters that the request has changed, if it may change any.
        lifted: The limits of time that are lifted behind it.
    """

    exchange: Exchange
    before: list[Reply]
    behind: list[Reply]
    values: Reply | None
    lifted: frozenset[str]


class SharedSession(ServerSession):
    """The session on which the server is asked for what clients want.

    Attributes:
        welcomes: What was said to clients, by the parameters they came with.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.welcomes: dict[frozenset[tuple[str, str]], Welcome] = {}
        self._well_formed: set[bytes] = set()

    def ask(
        self,
        client: Client,
        request: Request,
        reply: Reply,
        statements: Sequence[Statement] = (),
        changes: Sequence[Change] = (),
        told: Sequence[Signal] = (),
    ) -> Work:
        """Send a client's *request*, which ends in one ReadyForQuery, protected against its failure.

        Args:
            client: Whose request it is.
            request: Its bytes.
            reply: Who takes the answer.
            statements: What the request executes.
            changes: The run-time parameters that those set.
            told: What they say about channels.
        """
        if self.history.is_redefined or self.history.has_unchecked or self.history.acts:
            yield from self.catch_up()
        if (refusal := self._refusal(client, statements, changes)) is not None:
            return self.fail(client, refusal)
        transaction = self.begin(client)
        transaction.has_snapshot = transaction.has_snapshot or any(each.takes_snapshot for each in statements)
        if self._must_adopt(client, transaction) and (error := (yield from self._adopt(client))) is not None:
            return self.fail(client, error)
        guard = self.protect(client)
        asked = self._with_what_goes_along(client, transaction, request, reply, statements, changes)
        yield asked.exchange
        self.must_succeed(asked.before)
        if _has_failed(reply, asked.behind):
            self.history.return_to(guard)
            effects.note_failed(self, client, statements)
            self.fail_transaction(client)
            return False
        if statements:
            transaction.executes = True
            effects.note(self, client, statements, has_changed=reply.has_changed)
        if told:
            transaction.signals += told
        self._learn(client, statements, changes, asked)
        return True

    def _with_what_goes_along(
        self,
        client: Client,
        transaction: Transaction,
        request: Request,
        reply: Reply,
        statements: Sequence[Statement],
        changes: Sequence[Change],
    ) -> _Asked:
        """Return *request* with what the server must do before it, and what it is asked behind it."""
        exchange = Exchange()
        in_force = client.parameters.in_force
        wanted, limits = in_force.served, in_force.limits
        if limits:
            wanted, limits = in_force.while_it_runs(statements)
        read_only = transaction.read_only and not self._checks_others(transaction, statements)
        before = self.begin_exchange(exchange, wanted, read_only=read_only)
        exchange.ask(request, reply)
        at = len(exchange.replies)
        if read_only:
            exchange.ask(wire.query(READ_ONLY_END), Reply())
        values = None
        if changes:
            values = exchange.ask(wire.query(parameters.read_back(change.name for change in changes)), Reply())
            limits = limits.union(change.name for change in changes if change.name in parameters.LIMITS)
        if limits:
            exchange.ask(wire.query(parameters.lift(limits)), Reply())
        return _Asked(exchange, before, exchange.replies[at:], values, limits)

    def _checks_others(self, transaction: Transaction, statements: Sequence[Statement]) -> bool:
        """Return whether *statements* check what only others have written, and committed; a check locks rows."""
        kinds = {statement.kind for statement in statements}
        return kinds == {Kind.SET_CONSTRAINTS} and not self.has_deferred(transaction)

    def _refusal(self, client: Client, statements: Sequence[Statement], changes: Sequence[Change]) -> bytes | None:
        """Return the error that keeps *statements* from running though their client might run them, if there is one."""
        dirty = self.dirty_reads.read(client, statements)
        if dirty is not None and self.refuses_dirty_reads:
            return refusals.dirty_read(self.label(dirty.writer), dirty.table, dirty.wrote)
        mode = next((change.name for change in changes if change.name in MODE_PARAMETERS), None) if changes else None
        return refusals.mode_by_function(mode) if mode is not None else None

    def _learn(self, client: Client, statements: Sequence[Statement], changes: Sequence[Change], asked: _Asked) -> None:
        """Note the parameters that a request has changed, and the limits that were lifted behind it."""
        if asked.values is not None and asked.values.rows:
            encoding = self.backend.parameters.get("client_encoding", "UTF8")
            for change, value in zip(changes, asked.values.rows[0], strict=True):
                client.parameters.learn(change, text_of(value, encoding) if value else value)
            self.history.settings = client.parameters.in_force.served
        for statement in statements:
            if statement.kind is Kind.RESET:
                client.parameters.forget(statement.name)
                wanted = client.parameters.in_force.served
                self.history.settings = {name: wanted[name] for name in wanted if name != statement.name}
        if asked.lifted:
            self.history.settings = {n: v for n, v in self.history.settings.items() if n not in asked.lifted}
        identity = client.parameters.in_force.identity
        if identity and self.history.settings == client.parameters.in_force.served:  # RESET may have gone further
            self.superuser[identity] = self.backend.parameters.get("is_superuser", "")

    def syntax_error(
        self, client: Client, text: bytes, *, is_heard: bool = False
    ) -> Generator[Exchange, None, bytes | None]:
        """Return the server's complaint if *text* cannot be parsed, as it does before anything of it is executed.

        Args:
            client: Who says it.
            text: What it says.
            is_heard: Whether the client is to have the notices, such as that an identifier is too long.
        """
        if text in self._well_formed and client.parameters.in_force.reading is None:
            return None
        yield from self._adopt(client)
        exchange = Exchange()
        guard = self.history.guard()
        in_force = client.parameters.in_force
        self.switch(in_force.served)
        self.history.sql.append("SAVEPOINT reading")  # the failure takes back what was set since the last one
        controls = self.begin_exchange(exchange, in_force.served, read_only=False)
        exchange.ask(_FAIL, Reply())
        # In a failed transaction the server parses and does no more.
        reply = exchange.ask(wire.message(b"P", b"\0" + text + b"\0\0\0") + wire.SYNC, Reply())
        yield exchange
        self.must_succeed(controls)
        self.history.return_to(guard)
        if is_heard:
            client.send(reply.notices)
        if "P" in reply.fields or reply.fields.get("C") in _WRONG_BYTES:
            return reply.error
        is_plain = text.isascii() and in_force.reading is None and len(text) < _REMEMBERED
        if is_plain and not reply.notices and len(self._well_formed) < _REMEMBERED:
            self._well_formed.add(text)
        return None

    def _must_adopt(self, client: Client, transaction: Transaction) -> bool:
        """Return whether the session may have to be asked for what the client has set, before it makes a request."""
        return (
            client.parameters.in_force.lasting is not self.history.settings
            or transaction.constraints != self.history.constraints
        )

    def _adopt(self, client: Client) -> Generator[Exchange, None, bytes | None]:
        """Have on the session what the client has set; return the error if its parameters cannot be, and forget them.

        They can have become invalid since: a role was dropped, or its creation undone with the test that made it.
        """
        transaction = client.transaction
        if transaction is not None and transaction.constraints != self.history.constraints:
            yield from constraints.adopt(self, client)
        # Limits of time would end the session while it waits: they go with the request itself.
        wanted = client.parameters.in_force.lasting
        if not parameters.may_fail(self.history.settings, wanted):
            return None  # the switch travels with the request
        reply = yield from self.attempt(parameters.switch(self.history.settings, wanted) or ";")
        if reply.error is None:
            self.history.settings = wanted
            return None
        client.parameters.reset()
        for level in transaction.levels if transaction is not None else []:
            level.settings = client.parameters.snapshot()  # a rollback must not bring them back
        return reply.error

    def catch_up(self) -> Generator[Exchange, None, None]:
        """Do what waits for the next request, whoever makes it."""
        if self.history.is_redefined:
            yield from self.read_catalog()
        if self.history.has_unchecked:
            yield from constraints.check_again(self)
        yield from self.tidy()

    def commit(self, client: Client, relay: Relay | None = None) -> Work:
        """End the client's transaction and keep what it wrote, unless a deferred constraint objects.

        Args:
            client: Whose transaction.
            relay: Holds a command tag that the client must not see if that happens.
        """
        transaction = client.transaction
        if transaction is None:
            self.end(client, commits=True)
            return True
        if not transaction.lost and self.must_check(transaction):
            if (error := (yield from self._check(client, transaction))) is not None:
                if relay is not None:
                    relay.withdraw()
                client.send(error)
                self.roll_back(client)
                return False
        if relay is not None:
            relay.release()
        self.keep(client, transaction)
        return True

    def _check(self, client: Client, transaction: Transaction) -> Generator[Exchange, None, bytes | None]:
        """Return the error of a deferred constraint that objects to the COMMIT of *transaction*."""
        if self.history.is_redefined:
            yield from self.read_catalog()  # a constraint that it has dropped cannot be checked
        if not self.has_deferred(transaction):
            return None
        yield from self._adopt(client)  # triggers ask for what it has set
        error = yield from constraints.check(self, client, transaction)
        if error is not None and wire.error_fields(error[5:]).get("C") == _NO_SUCH_THING:
            yield from self.read_catalog()  # a function has dropped a constraint
            error = yield from constraints.check(self, client, transaction)
        return error


def _has_failed(reply: Reply, behind: Sequence[Reply]) -> bool:
    """Return whether a client's request has failed.

    What the sandbox asks *behind* it fails only if it is cancelled or timed out in the moment in which the request
    was done; then the client is told so, as if that had been a moment earlier.
    """
    late = next((each.error for each in behind if each.error is not None), None) if behind else None
    if late is None or reply.status == "E":  # which has failed with the request
        return reply.error is not None
    reply.special(_ERROR, late)
    return True

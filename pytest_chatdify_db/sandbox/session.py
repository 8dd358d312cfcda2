"""The one session that all clients of a test share, and what a client's transaction means on it.

The rule: the methods that need the server are generators. They yield what to ask and are resumed when it has answered,
so that the flow reads from top to bottom; a unit runs to its end before another client is served.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.quoting import in_ascii
from pytest_chatdify_db.sandbox import (
    catalog,
    constraints,
    cursors,
    dirty,
    names,
    parameters,
    refusals,
    signals,
    temporary,
)
from pytest_chatdify_db.sandbox.backend import Backend, Exchange, Reply, Request
from pytest_chatdify_db.sandbox.catalog import Catalog
from pytest_chatdify_db.sandbox.client import Client, Prepared
from pytest_chatdify_db.sandbox.cursors import Cursors
from pytest_chatdify_db.sandbox.dirty import DirtyReads
from pytest_chatdify_db.sandbox.leftovers import Leftovers
from pytest_chatdify_db.sandbox.lexer import text_of
from pytest_chatdify_db.sandbox.parameters import Change
from pytest_chatdify_db.sandbox.relay import Relay
from pytest_chatdify_db.sandbox.sql import MODE_PARAMETERS, Kind, Statement
from pytest_chatdify_db.sandbox.temporary import NO_TABLES, AtCommit, Tables
from pytest_chatdify_db.sandbox.transactions import (
    NO_SETTINGS,
    READ_ONLY_BEGIN,
    READ_ONLY_END,
    History,
    Level,
    Savepoint,
    Settings,
    Signal,
    Transaction,
)

#: Asks the server and says in the end whether all went well. Where not, the client has been told.
Work = Generator[Exchange, None, bool]

_WRITES: Final = frozenset({Kind.WRITE, Kind.COPY_IN, Kind.EXECUTE})
_FAIL: Final = wire.query("!")
#: SQLSTATE of a text that is not in its client's encoding.
_WRONG_BYTES: Final = frozenset({"22021", "22P05"})
_ERROR: Final = ord("E")
_NO_SUCH_THING: Final = "42704"
#: How many texts are remembered to be well-formed, and of what length.
_REMEMBERED: Final = 1_000


class Broken(Exception):
    """The shared transaction cannot be relied on any more; the text says why."""


class Welcome(NamedTuple):
    """What the server has said of the parameters that a client came with.

    Args:
        reported: All that it reports, with those in force.
        startup: Those that differ from the server's own.
    """

    reported: Settings
    startup: Settings


class SharedSession:
    """The session, the history of its open transaction, and the clients on it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.history = History()
        self.own_parameters = dict(backend.parameters)
        self.clients: dict[int, Client] = {}
        self.catalog = Catalog()
        self.dirty_reads = DirtyReads()
        self.refuses_dirty_reads = False
        self.defined_in: set[int] = set()  # the frames, by their depths, in which definitions may have changed
        self.took_advisory_lock = False
        self.has_temporary = False
        self.leftovers = Leftovers()
        self._prepared: dict[bytes, Prepared] = {}
        self.cursors = Cursors()
        self._closing = bytearray()  # Close messages for statements that nobody uses any more
        self._superuser: dict[tuple[str, ...], str] = {}  # what the server said of each role that was taken
        self._well_formed: set[bytes] = set()
        self.welcomes: dict[frozenset[tuple[str, str]], Welcome] = {}  # by what clients came with

    # -- Asking the server

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
        if self.history.is_redefined:
            yield from self._read_catalog()
        if (refusal := self._refusal(client, statements, changes)) is not None:
            return self.fail(client, refusal)
        transaction = self.begin(client)
        transaction.has_snapshot = transaction.has_snapshot or any(each.takes_snapshot for each in statements)
        if self._must_adopt(client, transaction) and (error := (yield from self._adopt(client))) is not None:
            return self.fail(client, error)
        guard = self.protect(client)
        exchange = Exchange()
        in_force = client.parameters.in_force
        wanted, limits = in_force.served, in_force.limits
        if limits:
            wanted, limits = in_force.while_it_runs(statements)
        read_only = transaction.read_only and not self._checks_others(transaction, statements)
        controls = self._begin_exchange(exchange, wanted, read_only=read_only)
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
        yield exchange
        self.must_succeed(controls)
        if _has_failed(reply, exchange.replies[at:]):
            self.history.return_to(guard)
            self.fail_transaction(client)
            return False
        if statements:
            transaction.executes = True
            self._note(client, statements)
        if told:
            transaction.signals += told
        self._learn(client, statements, changes, values, limits)
        identity = client.parameters.in_force.identity
        if identity and self.history.settings == client.parameters.in_force.served:  # RESET may have gone further
            self._superuser[identity] = self.backend.parameters.get("is_superuser", "")
        return True

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

    def _learn(
        self,
        client: Client,
        statements: Sequence[Statement],
        changes: Sequence[Change],
        values: Reply | None,
        lifted: frozenset[str],
    ) -> None:
        """Note the parameters that a request has changed, and the limits that were lifted behind it."""
        if values is not None and values.rows:
            encoding = self.backend.parameters.get("client_encoding", "UTF8")
            for change, value in zip(changes, values.rows[0], strict=True):
                client.parameters.learn(change, text_of(value, encoding) if value else value)
            self.history.settings = client.parameters.in_force.served
        for statement in statements:
            if statement.kind is Kind.RESET:
                client.parameters.forget(statement.name)
                wanted = client.parameters.in_force.served
                self.history.settings = {name: wanted[name] for name in wanted if name != statement.name}
        if lifted:
            self.history.settings = {n: v for n, v in self.history.settings.items() if n not in lifted}

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
        self._switch(in_force.served)
        self.history.sql.append("SAVEPOINT reading")  # the failure takes back what was set since the last one
        controls = self._begin_exchange(exchange, in_force.served, read_only=False)
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

    def protect(self, client: Client) -> Savepoint:
        """Return the savepoint to return to should the client's next request fail."""
        return self.history.protect(self.begin(client))

    def _begin_exchange(self, exchange: Exchange, wanted: Settings, *, read_only: bool) -> list[Reply]:
        """Put in front what the server must do before a client's request."""
        replies: list[Reply] = []
        self._switch(wanted)
        if read_only:
            self.history.sql.append(READ_ONLY_BEGIN)
        if before := self.history.take_sql():
            replies.append(exchange.ask(wire.query(before), Reply()))
        if closing := self._closing + self.cursors.take_closing():
            replies.append(exchange.ask(closing + wire.SYNC, Reply()))
            self._closing.clear()
        return replies

    def _switch(self, wanted: Settings) -> None:
        """Have the parameters *wanted* in force for what follows."""
        if wanted is not self.history.settings:
            if adopt := parameters.switch(self.history.settings, wanted):
                self.history.sql.append(adopt)
            self.history.settings = wanted

    @property
    def has_something_to_do(self) -> bool:
        """Whether something has to be done or looked at before a client's request goes to the server."""
        return bool(
            self.history.is_redefined
            or self._closing
            or self.has_temporary
            or self.cursors.has_closing
            or self.dirty_reads.may_be_read
            or self.history.has_something_to_say
        )

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

    def must_succeed(self, replies: Sequence[Reply]) -> None:
        """Check that what the sandbox asked for by itself was done.

        Raises:
            Broken: It was not, or the shared transaction has ended.
        """
        for reply in replies:
            if reply.error is not None:
                raise Broken(reply.fields.get("M", "a savepoint could not be set"))
        if self.backend.status == "I":
            raise Broken("a statement has committed it")

    def _note(self, client: Client, statements: Sequence[Statement]) -> None:
        for statement in statements:
            if statement.is_plain_read and not self.catalog.may_write(statement):
                continue
            if self._may_write(client, statement):
                self.history.wrote(client.number)
                self.begin(client).tables |= dirty.written_by(statement)
                self.dirty_reads.wrote(client, statement)
            if (named := _NAMED.get(statement.kind)) is not None:
                named(self, client, statement)
            if catalog.defines(statement):
                self.history.defined()
                self.defined_in.add(len(self.history.frames))
            if statement.kind in _WRITES:
                self._note_temporary(client, statement)
            if any("advisory" in name for name in statement.calls):
                self.took_advisory_lock = True
            self.leftovers.note(client, statement, len(self.history.frames))

    def _may_write(self, client: Client, statement: Statement) -> bool:
        if statement.kind is Kind.SET_CONSTRAINTS:
            return self.catalog.has_triggers
        if statement.kind in _WRITES or self.catalog.may_write(statement):
            if statement.kind is Kind.DECLARE:
                client.writing_cursors.add(statement.name)
            return True
        return statement.kind is Kind.CURSOR and statement.name in client.writing_cursors

    def _note_temporary(self, client: Client, statement: Statement) -> None:
        if (made := temporary.made(statement, len(self.history.frames))) is not None:
            client.temporary = {**client.temporary, made.name: replace(made, encoding=client.encoding)}
            self.has_temporary = True
        if client.temporary:
            client.temporary = temporary.without(client.temporary, temporary.dropped(statement))
            client.temporary = temporary.renamed(client.temporary, statement)

    def _set_constraints(self, client: Client, statement: Statement) -> None:
        transaction = self.begin(client)
        transaction.constraints += (in_ascii(text_of(statement.text, client.encoding)),)
        self.history.constraints = transaction.constraints

    def _declared(self, client: Client, statement: Statement) -> None:
        self.opened_cursor(client, statement.name.encode("latin-1"), is_holdable=statement.is_holdable)

    def _closed(self, client: Client, statement: Statement) -> None:
        self.cursors.closed(client, statement.name.encode("latin-1"))

    def _prepared_by_sql(self, client: Client, statement: Statement) -> None:
        prepared = names.prepared_by_sql(client, statement)
        client.statements[statement.name.encode("latin-1")] = prepared
        self.prepared(prepared)

    def _deallocated(self, client: Client, statement: Statement) -> None:
        prepared = client.statements.pop(statement.name.encode("latin-1"), None)
        if prepared is not None:
            self.closed(prepared)

    def has_deferred(self, transaction: Transaction) -> bool:
        """Return whether a constraint may wait for the COMMIT of *transaction*."""
        mark = transaction.levels[0].mark
        return (
            self.catalog.has_deferrable
            and mark is not None
            and mark.alive
            and self.history.own_after(mark.position, transaction.owner)
        )

    def attempt(
        self, sql: str, *, is_statement: bool = False, settings: Settings | None = None
    ) -> Generator[Exchange, None, Reply]:
        """Run *sql* for the sandbox itself; where it fails, nothing has happened.

        Args:
            sql: What to run.
            is_statement: Whether it is a part of what a client asked for, which may be cancelled.
            settings: The parameters that are to be in force, none of which the server refuses; None for any.
        """
        guard = self.history.guard()
        if settings is not None:
            self._switch(settings)
        exchange = Exchange()
        controls = []
        if before := self.history.take_sql():
            controls.append(exchange.ask(wire.query(before), Reply()))
        reply = exchange.ask(wire.query(sql), Reply())
        reply.is_statement = is_statement
        yield exchange
        self.must_succeed(controls)
        if reply.error is not None:
            self.history.return_to(guard)
        return reply

    def _read_catalog(self) -> Generator[Exchange, None, None]:
        # Names are read as UTF-8.
        settings = NO_SETTINGS if "client_encoding" in self.history.settings else None
        reply = yield from self.attempt(catalog.QUERY, settings=settings)
        if reply.error is None:
            before, self.catalog = self.catalog, Catalog.from_rows(reply.rows)
            if new := [name for name in self.catalog.deferred if name not in before.deferred]:
                # A check has made ALL constraints immediate, those to come included.
                self.history.sql.append(f"SET CONSTRAINTS {catalog.listed(new)} DEFERRED")
        self.history.is_redefined = False

    # -- A client's transaction

    def begin(self, client: Client) -> Transaction:
        """Return the client's transaction; where it has none, the one around its next statement."""
        if client.transaction is None:
            client.transaction = self._new_transaction(client)
        return client.transaction

    def _new_transaction(self, client: Client) -> Transaction:
        return Transaction(
            client.number,
            implicit=True,
            read_only=client.parameters.is_read_only,
            depth=len(self.history.frames),
            levels=[Level(settings=client.parameters.snapshot(), temporary=client.temporary)],
        )

    def commit(self, client: Client, relay: Relay | None = None) -> Work:
        """End the client's transaction and keep what it wrote, unless a deferred constraint objects.

        Args:
            client: Whose transaction.
            relay: Holds a command tag that the client must not see if that happens.
        """
        transaction = client.transaction
        if transaction is None:
            self._end(client, commits=True)
            return True
        if not transaction.lost and self.history.is_redefined:
            yield from self._read_catalog()  # a constraint that it has dropped cannot be checked
        if not transaction.lost and self.has_deferred(transaction):
            yield from self._adopt(client)  # triggers ask for what it has set
            error = yield from constraints.check(self, client, transaction)
            if error is not None and wire.error_fields(error[5:]).get("C") == _NO_SUCH_THING:
                yield from self._read_catalog()  # a function has dropped a constraint
                error = yield from constraints.check(self, client, transaction)
            if error is not None:
                if relay is not None:
                    relay.withdraw()
                client.send(error)
                self.roll_back(client)
                return False
        if relay is not None:
            relay.release()
        self.keep(client, transaction)
        return True

    def must_check(self, transaction: Transaction) -> bool:
        """Return whether the server must be asked before *transaction* can commit."""
        return self.history.is_redefined or self.has_deferred(transaction)

    def keep(self, client: Client, transaction: Transaction) -> None:
        """End the client's *transaction* and keep what it wrote, which nothing objects to."""
        self.history.leave(transaction, 0)
        client.parameters.end_transaction()
        self._commit_temporary(client)
        signals.deliver(self.clients, client, transaction.signals)
        self._end(client, commits=True)

    def roll_back(self, client: Client) -> None:
        """End the client's transaction and undo what it wrote."""
        transaction = client.transaction
        if transaction is not None:
            if not transaction.lost:
                self.undo(client)
                client.temporary = transaction.levels[0].temporary
            client.parameters.restore(transaction.levels[0].settings)
            self.history.leave(transaction, 0)
        self._end(client, commits=False)

    def undo(self, client: Client, index: int = 0) -> None:
        """Undo what the client has written since its savepoint of that index, and note whose cursors that closes."""
        since = self.history.undo(self.begin(client), index)
        if since is None:
            return
        for owner, cursor in self.cursors.undone(self.clients.values(), since, client):
            cursor.tick = self.history.opened_cursor(owner.number)
            self.history.sql.append(cursors.placeholder(cursor))

    def _end(self, client: Client, *, commits: bool) -> None:
        client.portals.clear()
        self.cursors.end_transaction(client, commits=commits)
        client.transaction = None
        self.dirty_reads.ended(client)
        if not client.cursors:
            self.history.closed_cursors(client.number)

    def _commit_temporary(self, client: Client) -> None:
        """Drop and empty the client's temporary tables that were made to be so at COMMIT."""
        if client.temporary and (acts := temporary.at_commit(client.temporary.values())):
            self._put_parameters_back()
            self.history.sql += acts
            self.history.wrote(client.number)
            dropped = [name for name, table in client.temporary.items() if table.at_commit is AtCommit.DROP]
            client.temporary = temporary.without(client.temporary, dropped)

    def drop_temporary(self, client: Client) -> None:
        """Drop all temporary tables of the client, as the end of its session would."""
        if client.temporary:
            self.drop_tables(client.number, client.temporary)
            client.temporary = NO_TABLES

    def drop_tables(self, owner: int, tables: Tables) -> None:
        """Drop temporary *tables* of a client, which may be gone."""
        self._put_parameters_back()
        self.history.sql += [table.drop for table in tables.values()]
        self.history.wrote(owner)

    def _put_parameters_back(self) -> None:
        """Take back what a client has set: another role may not be allowed what the sandbox itself does."""
        if back := parameters.switch(self.history.settings, NO_SETTINGS):
            self.history.sql.append(back)
            self.history.settings = NO_SETTINGS

    def fail_transaction(self, client: Client) -> None:
        """Note that a statement of the client has failed."""
        client.journal.failed(client)
        transaction = client.transaction
        if transaction is None:
            return
        if transaction.implicit:
            self.roll_back(client)
        else:
            transaction.failed = True
            client.parameters.restore(transaction.levels[-1].settings)

    def fail(self, client: Client, error: bytes) -> bool:
        """Tell the client of an *error* that the sandbox has found by itself; return False."""
        client.send(error)
        self.fail_transaction(client)
        return False

    # -- What a request is in its transaction

    @staticmethod
    def is_first(client: Client) -> bool:
        """Return whether nothing has been executed since the client's last Sync or COMMIT."""
        return client.transaction is None or (client.transaction.implicit and not client.transaction.executes)

    def may_fail_at_commit(self, client: Client) -> bool:
        """Return whether the end of a single statement can bring an error of its own."""
        return (self.catalog.has_deferrable or self.history.is_redefined) and not client.in_transaction

    def label(self, number: int) -> str:
        """Return how messages call the client of that number."""
        client = self.clients.get(number)
        return client.label if client is not None else f"connection {number} (closed since)"

    @property
    def has_something_to_report(self) -> bool:
        """Whether the end of a frame would have something to report, or would look for it."""
        for client in self.clients.values():
            if client.transaction is not None or client.channels:
                return True
        saw_definition = len(self.history.frames) in self.defined_in
        return bool(saw_definition or self.took_advisory_lock or self.leftovers.has_any or self.dirty_reads.found)

    # -- Prepared statements and cursors

    def has(self, prepared: Prepared) -> bool:
        """Return whether the server's session has *prepared*; of an unnamed statement that is never sure for long."""
        return self._prepared.get(prepared.name) is prepared

    def prepared(self, prepared: Prepared) -> None:
        """Note that the server's session has it now."""
        if prepared.name:
            self._prepared[prepared.name] = prepared

    def closed(self, prepared: Prepared) -> None:
        """Note that the client has closed it."""
        if self.has(prepared):
            del self._prepared[prepared.name]

    def make_room(self, prepared: Prepared) -> None:
        """Have the server forget what has the name of *prepared*: it was replaced while its client was elsewhere."""
        if (other := self._prepared.get(prepared.name)) is not None:
            self.discard(other)

    def discard(self, prepared: Prepared) -> None:
        """Have the server forget a statement."""
        if self.has(prepared):
            del self._prepared[prepared.name]
            self._closing += wire.message(b"C", b"S" + prepared.name + b"\0")

    def opened_cursor(self, client: Client, name: bytes, *, is_holdable: bool = False) -> None:
        """Note that the client has opened a cursor."""
        if name not in client.cursors:
            self.cursors.opened(client, name, is_holdable=is_holdable)
        client.cursors[name].tick = self.history.opened_cursor(client.number)

    def close_unnamed(self, client: Client) -> None:
        """Forget the client's unnamed statement and portal, which its simple queries destroy."""
        client.statements.pop(b"", None)
        client.portals.pop(b"", None)
        if b"" in client.cursors:
            self.cursors.close_unnamed(client)

    def close_cursors(self, client: Client) -> None:
        """Close all that the client has open."""
        client.portals.clear()
        self.cursors.close(client, client.cursors)
        self.history.closed_cursors(client.number)

    # -- Ends

    def push(self, name: str) -> None:
        """Open a frame."""
        frame = self.history.push(name)
        frame.temporary = {client.number: client.temporary for client in self.clients.values() if client.temporary}

    def ready(self, client: Client) -> None:
        """Tell the client that its unit is done, and of parameters that have changed by it."""
        if client.told is not client.parameters.in_force:
            self._report(client)
        client.ready()

    def _report(self, client: Client) -> None:
        for name, value in client.parameters.reports(client.defaults, self._superuser).items():
            if client.reported.get(name) != value:
                client.reported[name] = value
                client.send(wire.parameter_status(name, value))
        client.told = client.parameters.in_force

    def forget(self, client: Client) -> None:
        """Undo what *client* has not committed: it is gone."""
        self.roll_back(client)
        self.close_cursors(client)
        self.drop_temporary(client)
        for prepared in client.statements.values():
            self.discard(prepared)
        self.clients.pop(client.number, None)


_NAMED: Final = {
    Kind.SET_CONSTRAINTS: SharedSession._set_constraints,
    Kind.DECLARE: SharedSession._declared,
    Kind.CLOSE: SharedSession._closed,
    Kind.PREPARE: SharedSession._prepared_by_sql,
    Kind.DEALLOCATE: SharedSession._deallocated,
}


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

"""What each client has open on the shared session, and what of it remains: transactions, cursors, temporary tables.

The rule: nothing here asks the server. What it must do is noted in the history, the cursors and the prepared
statements, and goes out in front of the next request.
"""

from __future__ import annotations

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import cursors, parameters, signals, temporary
from pytest_chatdify_db.sandbox.catalog import Catalog
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.closing import Closing
from pytest_chatdify_db.sandbox.cursors import Cursors
from pytest_chatdify_db.sandbox.dirty import DirtyReads
from pytest_chatdify_db.sandbox.history import History
from pytest_chatdify_db.sandbox.leftovers import Leftovers
from pytest_chatdify_db.sandbox.prepared import PreparedStatements
from pytest_chatdify_db.sandbox.temporary import NO_TABLES, AtCommit, Tables
from pytest_chatdify_db.sandbox.transactions import Level, Savepoint, Settings, Transaction


class Ledger:
    """The clients of the shared session, and the history of its open transaction.

    Attributes:
        history: The writes and savepoints of the one real transaction.
        clients: Who is connected, by number.
        catalog: What is known of the schema.
        closing: What is still to be closed on the server.
        statements: The prepared statements that the server's session has.
        cursors: The open cursors.
        superuser: What the server said of each role that a client has taken.
        defined_in: The frames, by their depths, in which definitions may have changed.
        locked_in: Those in which a statement has called a function that takes an advisory lock.
        has_temporary: Whether there are temporary tables.
        leftovers: What no transaction ends.
        dirty_reads: What clients have seen of each other's uncommitted writes.
        refuses_dirty_reads: Whether that is an error.
    """

    def __init__(self) -> None:
        self.history = History()
        self.clients: dict[int, Client] = {}
        self.catalog = Catalog()
        self.closing = Closing()
        self.statements = PreparedStatements(self.closing)
        self.cursors = Cursors(self.closing)
        self.superuser: dict[tuple[str, ...], str] = {}
        self.defined_in: set[int] = set()
        self.locked_in: set[int] = set()
        self.has_temporary = False
        self.leftovers = Leftovers()
        self.dirty_reads = DirtyReads()
        self.refuses_dirty_reads = False

    # -- What is to be asked

    @property
    def has_something_to_do(self) -> bool:
        """Whether something has to be done or looked at before a client's request goes to the server."""
        return bool(
            self.history.is_redefined
            or self.closing
            or self.has_temporary
            or self.dirty_reads.may_be_read
            or self.history.has_something_to_say
        )

    def may_fail_at_commit(self, client: Client) -> bool:
        """Return whether the end of a single statement can bring an error of its own."""
        return (self.catalog.has_deferrable or self.history.is_redefined) and not client.in_transaction

    def must_check(self, transaction: Transaction) -> bool:
        """Return whether the server must be asked before *transaction* can commit."""
        return self.history.is_redefined or self.has_deferred(transaction)

    def has_deferred(self, transaction: Transaction) -> bool:
        """Return whether a constraint may wait for the COMMIT of *transaction*."""
        mark = transaction.levels[0].mark
        return (
            self.catalog.has_deferrable
            and mark is not None
            and mark.alive
            and self.history.own_after(mark.position, transaction.owner)
        )

    @staticmethod
    def is_first(client: Client) -> bool:
        """Return whether nothing has been executed since the client's last Sync or COMMIT."""
        return client.transaction is None or (client.transaction.implicit and not client.transaction.executes)

    @property
    def has_something_to_report(self) -> bool:
        """Whether the end of a frame would have something to report, or would look for it."""
        for client in self.clients.values():
            if client.transaction is not None or client.channels:
                return True
        depth = len(self.history.frames)
        has_changed = depth in self.defined_in or depth in self.locked_in
        return bool(has_changed or self.leftovers.has_any or self.dirty_reads.found)

    def label(self, number: int) -> str:
        """Return how messages call the client of that number."""
        client = self.clients.get(number)
        return client.label if client is not None else f"connection {number} (closed since)"

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
            isolation=client.parameters.in_force.isolation,
            depth=len(self.history.frames),
            levels=[Level(settings=client.parameters.snapshot(), temporary=client.temporary)],
        )

    def protect(self, client: Client) -> Savepoint:
        """Return the savepoint to return to should the client's next request fail."""
        return self.history.protect(self.begin(client))

    def keep(self, client: Client, transaction: Transaction) -> None:
        """End the client's *transaction* and keep what it wrote, which nothing objects to."""
        self.history.leave(transaction, 0)
        client.parameters.end_transaction()
        self._commit_temporary(client)
        signals.deliver(self.clients, client, transaction.signals)
        self.end(client, commits=True)

    def roll_back(self, client: Client) -> None:
        """End the client's transaction and undo what it wrote."""
        transaction = client.transaction
        if transaction is not None:
            if not transaction.lost:
                self.undo(client)
                client.temporary = transaction.levels[0].temporary
            client.parameters.restore(transaction.levels[0].settings)
            self.history.leave(transaction, 0)
        self.end(client, commits=False)

    def undo(self, client: Client, index: int = 0) -> None:
        """Undo what the client has written since its savepoint of that index, and note whose cursors that closes."""
        since = self.history.undo(self.begin(client), index)
        if since is None:
            return
        for owner, cursor in self.cursors.undone(self.clients.values(), since, client):
            cursor.tick = self.history.opened_cursor(owner.number)
            self.history.sql.append(cursors.placeholder(cursor))

    def end(self, client: Client, *, commits: bool) -> None:
        """Forget the client's transaction, and close what ends with it."""
        client.portals.clear()
        self.cursors.end_transaction(client, commits=commits)
        client.transaction = None
        client.mid_pipeline = False
        self.dirty_reads.ended(client)
        if not client.cursors:
            self.history.closed_cursors(client.number)

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

    # -- Settings and temporary tables

    def switch(self, wanted: Settings) -> None:
        """Have the parameters *wanted* in force for what follows."""
        if wanted is not self.history.settings:
            if adopt := parameters.switch(self.history.settings, wanted):
                self.history.sql.append(adopt)
            self.history.settings = wanted

    def _commit_temporary(self, client: Client) -> None:
        """Drop and empty the client's temporary tables that were made to be so at COMMIT."""
        if client.temporary and (acts := temporary.at_commit(client.temporary.values())):
            self.history.acts |= dict.fromkeys(acts, client.number)
            dropped = [name for name, table in client.temporary.items() if table.at_commit is AtCommit.DROP]
            client.temporary = temporary.without(client.temporary, dropped)

    def drop_temporary(self, client: Client) -> None:
        """Drop all temporary tables of the client, as the end of its session would."""
        if client.temporary:
            self.drop_tables(client.number, client.temporary)
            client.temporary = NO_TABLES

    def drop_tables(self, owner: int, tables: Tables) -> None:
        """Drop temporary *tables* of a client, which may be gone."""
        self.history.acts |= {table.drop: owner for table in tables.values()}

    # -- Cursors

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

    # -- Frames and clients

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
        for name, value in client.parameters.reports(client.defaults, self.superuser).items():
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
            self.statements.discard(prepared)
        self.clients.pop(client.number, None)

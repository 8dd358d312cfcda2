"""The session on the server, as the sandbox asks it by itself: where an attempt fails, nothing has happened.

The rule: what waits to be said (savepoints, settings, what is to be closed) goes in front of whatever is asked next. It
must succeed: where it does not, nothing that follows could be relied on.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import catalog
from pytest_chatdify_db.sandbox.backend import Backend, Exchange, Reply
from pytest_chatdify_db.sandbox.catalog import Catalog
from pytest_chatdify_db.sandbox.ledger import Ledger
from pytest_chatdify_db.sandbox.schema_query import QUERY
from pytest_chatdify_db.sandbox.transactions import NO_SETTINGS, READ_ONLY_BEGIN, Settings


class Broken(Exception):
    """The shared transaction cannot be relied on any more; the text says why."""


class ServerSession(Ledger):
    """What clients have open, and the session on which the server has it.

    Attributes:
        backend: The session.
        own_parameters: The parameters that it reported at its start.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.own_parameters = dict(backend.parameters)

    def begin_exchange(self, exchange: Exchange, wanted: Settings, *, read_only: bool) -> list[Reply]:
        """Put in front what the server must do before a request."""
        replies: list[Reply] = []
        self.switch(wanted)
        if read_only:
            self.history.sql.append(READ_ONLY_BEGIN)
        if before := self.history.take_sql():
            replies.append(exchange.ask(wire.query(before), Reply()))
        if closing := self.closing.take():
            replies.append(exchange.ask(closing + wire.SYNC, Reply()))
        return replies

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
        exchange = Exchange()
        wanted = self.history.settings if settings is None else settings
        controls = self.begin_exchange(exchange, wanted, read_only=False)
        reply = exchange.ask(wire.query(sql), Reply())
        reply.is_statement = is_statement
        yield exchange
        self.must_succeed(controls)
        if reply.error is not None:
            self.history.return_to(guard)
        return reply

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

    def tidy(self) -> Generator[Exchange, None, bytes | None]:
        """Drop and empty temporary tables whose time has come; return the error if one is in use, which waits on."""
        error = None
        for act, owner in list(self.history.acts.items()):
            reply = yield from self.attempt(act, settings=NO_SETTINGS)  # another role may not be allowed to
            if reply.error is None:
                self.history.wrote(owner)
                del self.history.acts[act]
            error = error or reply.error
        return error

    def read_catalog(self) -> Generator[Exchange, None, None]:
        """Read what is known of the schema anew."""
        # Names are read as UTF-8, and along no client's search path, which may have operators of its own.
        reply = yield from self.attempt(QUERY, settings=NO_SETTINGS)
        if reply.error is None:
            before, self.catalog = self.catalog, Catalog.from_rows(reply.rows)
            if new := [name for name in self.catalog.deferred if name not in before.deferred]:
                # A check has made ALL constraints immediate, those to come included.
                self.history.sql.append(f"SET CONSTRAINTS {catalog.listed(new)} DEFERRED")
        self.history.is_redefined = False

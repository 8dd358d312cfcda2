"""The short way of a plain read in a client's transaction: to the server as it came, and its answer back as it comes.

The rule: it is taken only where the long way (``simple``, ``extended``) would ask the server for just that and tell the
client just that; whatever is in doubt goes there. Most of what a test waits for are reads of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import texts
from pytest_chatdify_db.sandbox.backend import Exchange
from pytest_chatdify_db.sandbox.client import Client, Portal
from pytest_chatdify_db.sandbox.messages import BIND, EXECUTE, QUERY, SYNC, Message
from pytest_chatdify_db.sandbox.relay import Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.statement import Statement
from pytest_chatdify_db.sandbox.transactions import Savepoint, Transaction

#: Of the unnamed portal, to its end.
_ALL_ROWS: Final = bytes(5)
_EXECUTE_AND_SYNC: Final = wire.message(b"E", _ALL_ROWS) + wire.SYNC


def serve(session: SharedSession, client: Client, unit: Sequence[Message]) -> Work:
    """Serve *unit*, if this is the way for it; return whether it is."""
    transaction = client.transaction
    if transaction is None or (guard := _guard(session, client, transaction)) is None:
        return False
    kind = unit[-1].kind
    if kind == QUERY and len(unit) == 1:
        request = _query(session, client, unit[0].body)
    elif kind == SYNC and len(unit) == 3 and unit[0].kind == BIND and unit[1] == (EXECUTE, _ALL_ROWS):
        request = _bind(session, client, unit[0].body)
    else:
        return False
    if not request:
        return False
    exchange = Exchange()
    relay = exchange.ask(request, Relay(client))
    transaction.has_snapshot = True
    yield exchange
    session.must_succeed(())
    if relay.error is None:
        transaction.executes = True
    else:
        session.history.return_to(guard)
        session.fail_transaction(client)
        if not relay.bound and kind == SYNC:
            client.portals.pop(b"", None)
    session.ready(client)
    return True


def _guard(session: SharedSession, client: Client, transaction: Transaction) -> Savepoint | None:
    """Return the savepoint to return to, if nothing has to be done, checked or noted around a read of the client."""
    in_force = client.parameters.in_force
    if (
        transaction.implicit
        or transaction.failed
        or transaction.read_only
        or transaction.stable_since is not None
        or transaction.constraints != session.history.constraints
        or in_force.settings is not session.history.settings
        or in_force.limits
        or in_force.identity
        or in_force.reading is not None
        or client.cursors
        or client.copying is not None
        or client.skips
        or client.mid_pipeline
        or client.has_local
        or session.has_something_to_do
    ):
        return None
    return session.history.guard_of(transaction)


def _query(session: SharedSession, client: Client, body: bytes) -> bytes:
    """Return the request that a Query is; empty if it is not to go this way."""
    text = body[:-1]
    parts = texts.parts(text)
    if len(parts) != 1 or body.find(b"\0") != len(text):
        return b""
    statement, at = parts[0]
    if at or len(statement.text) != len(text) or not _is_plain(session, statement):
        return b""
    session.close_unnamed(client)
    client.runs(text[:2_000])
    return wire.message(b"Q", body)


def _bind(session: SharedSession, client: Client, body: bytes) -> bytes:
    """Return the request that a Bind is whose unnamed portal is executed to its end; empty likewise."""
    end = body.find(b"\0", 1)
    prepared = client.statements.get(body[1:end])
    if body[:1] != b"\0" or prepared is None or prepared.text is not None or not session.statements.has(prepared):
        return b""
    statement = prepared.statement
    if statement is None or not _is_plain(session, statement):
        return b""
    bind = wire.message(b"B", b"\0" + prepared.name + body[end:])
    client.portals[b""] = Portal(prepared, (), bind)
    client.runs(statement.text[:2_000])
    return bind + _EXECUTE_AND_SYNC


def _is_plain(session: SharedSession, statement: Statement) -> bool:
    return statement.is_plain_read and statement.takes_snapshot and not session.catalog.may_write(statement)

"""The end of a frame: its writes are undone, its transactions lost, and what outlives both is found.

The rule: nothing of a frame is left on the shared session, whatever its clients have left.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import leftovers
from pytest_chatdify_db.sandbox.backend import Exchange, Reply
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.reports import Leftover
from pytest_chatdify_db.sandbox.server_session import Broken
from pytest_chatdify_db.sandbox.session import SharedSession
from pytest_chatdify_db.sandbox.temporary import NO_TABLES


class Undone(NamedTuple):
    """What was found at the end of a frame.

    Args:
        in_transaction: The clients whose transaction was begun in it and not ended.
        leftovers: What clients keep that no transaction ends.
        misled: The clients that may have seen definitions which are undone now.
    """

    in_transaction: list[Client]
    leftovers: list[Leftover]
    misled: list[Client]


def end_frame(session: SharedSession) -> Generator[Exchange, None, Undone]:
    """Pop a frame of *session* and take stock; what was written in it is undone by `roll_back_frame`."""
    depth = len(session.history.frames) - 1
    yield from session.tidy()
    tables = (yield from _temporary_tables(session)) if session.leftovers.has_tables(depth) else []
    frame = session.history.pop()
    left = []
    session.cursors.close_everybodys(session.clients.values())
    for client in session.clients.values():
        client.portals.clear()
        client.notifications.clear()
        _forget_tables(client, depth)
        client.temporary = frame.temporary.get(client.number, NO_TABLES)
        transaction = client.transaction
        if transaction is not None and transaction.depth > depth and not transaction.lost:
            transaction.failed, transaction.lost = True, frame.name
            left += [client] if client.in_transaction else []
    session.history.cursors.clear()
    for number, made in frame.temporary.items():
        if made and number not in session.clients:  # the rollback brings back what went with its client
            session.drop_tables(number, made)
    session.has_temporary = any(client.temporary for client in session.clients.values())
    # asyncpg keeps what it was told of statements and types, and would go on with tables that are no more.
    saw_definition = depth + 1 in session.defined_in
    misled = [client for client in session.clients.values() if saw_definition and any(client.statements)]
    session.defined_in.discard(depth + 1)
    has_locks = depth + 1 in session.locked_in and (yield from roll_back_frame(session))
    idle = {client.number: client for client in session.clients.values() if client not in left}
    found = session.leftovers.take(idle, depth, tables, has_locks=has_locks)
    return Undone(left, found, [client for client in misled if client.transaction is None])


def renumber(session: SharedSession, old: int, new: int) -> None:
    """Have what clients have begun in the *old*-th frame end with the *new*-th; with none if that is no frame's."""
    for client in session.clients.values():
        if client.transaction is not None and client.transaction.depth == old:
            client.transaction.depth = new
    for depths in (session.defined_in, session.locked_in):
        if old in depths:
            depths.remove(old)
            depths.add(new)
    session.leftovers.renumber(old, new)


def _forget_tables(client: Client, depth: int) -> None:
    """Have a rollback of the client not bring back the temporary tables that were made above *depth*."""
    for level in client.transaction.levels if client.transaction is not None else ():
        if level.temporary:
            level.temporary = {name: table for name, table in level.temporary.items() if table.depth <= depth}


def _temporary_tables(session: SharedSession) -> Generator[Exchange, None, list[str]]:
    exchange = Exchange()
    controls = [exchange.ask(wire.query(session.history.take_sql() or ";"), Reply())]
    reply = exchange.ask(wire.query(leftovers.TABLES), Reply())
    yield exchange
    session.must_succeed([*controls, reply])
    return [name or "" for (name,) in reply.rows]


def roll_back_frame(session: SharedSession) -> Generator[Exchange, None, bool]:
    """Undo what was written in the frame that was popped last; return whether an advisory lock outlived it."""
    rollback = session.history.take_rollback()
    depth = len(session.history.frames) + 1
    took_lock = depth in session.locked_in
    session.locked_in.discard(depth)
    if not rollback and not took_lock:
        return False
    exchange = Exchange()
    undone = exchange.ask(wire.query(rollback or ";"), Reply())
    locks = Reply()
    if took_lock:  # a session's own, which no rollback releases
        exchange.ask(wire.query(leftovers.LOCKS), locks)
        exchange.ask(wire.query("SELECT pg_catalog.pg_advisory_unlock_all()"), Reply())
    yield exchange
    if undone.error is not None:
        raise Broken(undone.fields.get("M", ""))
    return bool(locks.rows)

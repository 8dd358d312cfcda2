"""Deferred constraints at the COMMIT of one of several clients (SET CONSTRAINTS in the manual).

The rule: the error reaches the client whose COMMIT it is. The server checks all that waits, and does not say whose it
was. While another client is in the middle of writing, only what this one's tables need is checked, and an error about a
table that both have written to is left for the other's COMMIT.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pytest_chatdify_db.sandbox.backend import Exchange
from pytest_chatdify_db.sandbox.transactions import Transaction

if TYPE_CHECKING:
    from pytest_chatdify_db.sandbox.session import SharedSession


def check(session: SharedSession, transaction: Transaction) -> Generator[Exchange, None, bytes | None]:
    """Check what waits for the COMMIT of *transaction*; return the server's error, if it has one."""
    others = [
        client.transaction
        for client in session.clients.values()
        if client.transaction is not None
        and client.transaction is not transaction
        and session.has_deferred(client.transaction)
    ]
    if not others:
        reply = yield from session.attempt(session.catalog.check(), is_statement=True)
        return reply.error
    contested = frozenset[str]().union(*(other.tables for other in others))
    waiting = session.catalog.on(transaction.tables)
    while waiting:
        reply = yield from session.attempt(session.catalog.check(waiting), is_statement=True)
        if reply.error is None or reply.fields.get("t") not in contested:
            return reply.error
        failed = f"{reply.fields.get('s')}.{reply.fields.get('n')}"
        left = [name for name in waiting if name.replace('"', "") != failed]
        if left == waiting:
            return None
        waiting = left
    return None

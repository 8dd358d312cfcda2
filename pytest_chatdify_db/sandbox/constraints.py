"""Deferred constraints of several clients: SET CONSTRAINTS, and the check at the COMMIT of one of them.

The rule: the error reaches the client whose COMMIT it is. The server checks all that waits, and does not say whose it
was. While another client is in the middle of writing, only what this one's tables need is checked, and an error about a
table that both have written to is left for the other's COMMIT. SET CONSTRAINTS holds while its client is served.
"""

from __future__ import annotations

from collections.abc import Generator

from pytest_chatdify_db.sandbox import parameters
from pytest_chatdify_db.sandbox.backend import Exchange, Reply
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.lexer import text_of
from pytest_chatdify_db.sandbox.server_session import ServerSession
from pytest_chatdify_db.sandbox.transactions import READ_ONLY_BEGIN, READ_ONLY_END, Transaction


def check(session: ServerSession, client: Client, transaction: Transaction) -> Generator[Exchange, None, bytes | None]:
    """Check what waits for the COMMIT of the *client*'s *transaction*; return the server's error, if it has one."""
    others = [each for each in _waiting(session) if each is not transaction]
    settings = client.parameters.in_force.lasting
    if not others:
        sql = _as_in(transaction, session.catalog.check())
        reply = yield from session.attempt(sql, is_statement=True, settings=settings)
        if reply.error is None:
            session.history.constraints = ()  # it leaves them as they were declared
            session.history.has_unchecked = False
        return _told(session, client, reply)
    contested = {text_of(table) for other in others for table in other.tables}
    waiting = session.catalog.on(transaction.tables)
    while waiting:
        sql = _as_in(transaction, session.catalog.check(waiting))
        reply = yield from session.attempt(sql, is_statement=True, settings=settings)
        if reply.error is None or reply.fields.get("t") not in contested:
            return _told(session, client, reply)
        failed = f"{reply.fields.get('s')}.{reply.fields.get('n')}"
        left = [name for name in waiting if name.replace('"', "") != failed]
        if left == waiting:
            return None
        waiting = left
    return None


def check_again(session: ServerSession) -> Generator[Exchange, None, None]:
    """Check what waits again since a rollback: until it is checked, its tables cannot be altered or emptied."""
    if not _waiting(session):
        yield from session.attempt(session.catalog.check())
        session.history.constraints, session.history.has_unchecked = (), False


def _waiting(session: ServerSession) -> list[Transaction]:
    """Return the transactions for whose COMMIT a constraint may wait."""
    open_ones = [client.transaction for client in session.clients.values() if client.transaction is not None]
    return [transaction for transaction in open_ones if session.has_deferred(transaction)]


def _told(session: ServerSession, client: Client, reply: Reply) -> bytes | None:
    """Note what triggers have done and said at COMMIT; return their error."""
    client.send(reply.notices)
    if reply.error is None:
        session.history.checked()
        if session.catalog.has_triggers:
            session.history.wrote(client.number)
    return reply.error


def adopt(session: ServerSession, client: Client) -> Generator[Exchange, None, None]:
    """Have constraints checked when *client* has asked for it by SET CONSTRAINTS, and no other client has."""
    history, transaction = session.history, session.begin(client)
    settings = client.parameters.in_force.lasting  # names are found along the search path
    switch = parameters.switch(history.settings, settings)
    for modes in session.catalog.modes(transaction.constraints):
        reply = yield from session.attempt(f"{switch};{modes}" if switch else modes)
        if reply.error is None:
            history.settings = settings
            break
    history.constraints = transaction.constraints


def _as_in(transaction: Transaction, check: str) -> str:
    """Return *check* as the transaction's own COMMIT would do it: one that may not write may not lock rows either."""
    return f"{READ_ONLY_BEGIN};{check};{READ_ONLY_END}" if transaction.read_only else check

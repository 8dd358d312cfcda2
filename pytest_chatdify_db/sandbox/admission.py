"""Whether a statement may run on the shared session, and the notice that comes with it.

The rule: errors that a session of the client's own would give, and those that one session for all cannot avoid.
"""

from __future__ import annotations

from typing import Final

from pytest_chatdify_db.sandbox import failed, names, refusals, temporary
from pytest_chatdify_db.sandbox.client import Client, Cursor
from pytest_chatdify_db.sandbox.session import SharedSession
from pytest_chatdify_db.sandbox.statement import Kind, Statement

#: Statements that make sense only inside BEGIN, and what errors call them.
NEED_TRANSACTION: Final = {Kind.LOCK: "LOCK TABLE", Kind.DECLARE: "DECLARE CURSOR"}
_WARN_OUTSIDE: Final = {
    Kind.SET_LOCAL: "SET LOCAL",
    Kind.SET_LOCAL_LIMIT: "SET LOCAL",
    Kind.SET_CONSTRAINTS: "SET CONSTRAINTS",
    Kind.SET_TRANSACTION: "SET TRANSACTION",
}


def objection(
    session: SharedSession, client: Client, statement: Statement | None, *, is_sole: bool = False
) -> bytes | None:
    """Return the error that keeps *statement* from running, if there is one.

    Args:
        session: Where it would run.
        client: Who wants to run it.
        statement: What it does; None if that cannot be told.
        is_sole: Whether it is all there is between two ReadyForQuery.
    """
    if (error := failed.objection(client, statement)) is not None:
        return error
    transaction = client.transaction
    if statement is None:
        return None
    if client.cursors and (error := _unreadable(client, statement)) is not None:
        return error
    if session.has_temporary and (error := foreign_table(session, client, statement)) is not None:
        return error
    if session.history.conflict is not None and statement.reads_data:
        conflict = session.history.conflict
        place = session.history.place
        return refusals.conflict(session.label(conflict.owner), session.label(conflict.other), place)
    if transaction is not None and transaction.stable_since is not None and statement.reads_data:
        other = session.history.other_after(transaction.stable_since, client.number)
        if other is not None:
            return refusals.unstable(session.label(other))
    if is_sole and not client.in_transaction and statement.kind in NEED_TRANSACTION:
        if not statement.is_holdable:
            return refusals.needs_transaction(NEED_TRANSACTION[statement.kind])
    return None


def _unreadable(client: Client, statement: Statement) -> bytes | None:
    """Return the error that what *statement* reads is a cursor no more, or a portal that the sandbox has run itself."""
    cursor = names.cursor_of(client, statement)
    if (undone := undone_cursor(client, cursor)) is not None:
        return undone
    if cursor is not None and cursor.is_held and (word := statement.current_of) is not None:
        return refusals.held(word.name)
    name = statement.name.encode("latin-1")
    portal = client.portals.get(name) if statement.kind is Kind.CURSOR else None
    return refusals.has_run(name) if portal is not None and portal.has_run else None


def undone_cursor(client: Client, cursor: Cursor | None) -> bytes | None:
    """Return the error that *cursor* was closed by another client's rollback, if it was."""
    return refusals.cursor_undone(client.label, cursor.undone_by) if cursor is not None and cursor.undone_by else None


def foreign_table(session: SharedSession, client: Client, statement: Statement) -> bytes | None:
    """Return the error that *statement* speaks of a temporary table that another client has made."""
    if not statement.reads_data:
        return None
    for other in session.clients.values():
        if other is not client and other.temporary:
            for name in temporary.used(statement) & other.temporary.keys():
                makes = (made := temporary.made(statement)) is not None and made.name == name
                return refusals.foreign_table(name, other.label, makes=makes)
    return None


def warning(client: Client, statement: Statement, *, is_sole: bool) -> bytes:
    """Return the notice that the server would send with *statement* for want of BEGIN, empty if none."""
    command = _WARN_OUTSIDE.get(statement.kind)
    if command is not None and statement.kind is Kind.SET_TRANSACTION and statement.name:  # a parameter
        command = "SET LOCAL" if statement.is_local else None
    if command is None or not is_sole or client.in_transaction:
        return b""
    return client.warning("25P01", f"{command} can only be used in transaction blocks")

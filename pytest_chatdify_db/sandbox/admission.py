"""Whether a statement may run on the shared session, and the notice that comes with it.

The rule: errors that a session of the client's own would give, and those that one session for all cannot avoid.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import names, refusals, temporary
from pytest_chatdify_db.sandbox.client import Client, Prepared
from pytest_chatdify_db.sandbox.lexer import tokens
from pytest_chatdify_db.sandbox.session import SharedSession
from pytest_chatdify_db.sandbox.statement import EXITS, Kind, Statement
from pytest_chatdify_db.sandbox.texts import shown

_PARAMETER: Final = re.compile(r"\$[0-9]+")
_NEED_TRANSACTION: Final = {Kind.LOCK: "LOCK TABLE", Kind.DECLARE: "DECLARE CURSOR"}
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
    transaction = client.transaction
    if transaction is not None and transaction.failed:
        if statement is None or statement.kind not in EXITS:
            return refusals.lost(transaction.lost) if transaction.lost else refusals.IN_FAILED
    if statement is None:
        return None
    if client.cursors and (error := _unreadable(client, statement)) is not None:
        return error
    if session.has_temporary and (error := foreign_table(session, client, statement)) is not None:
        return error
    if session.history.conflict is not None and statement.reads_data:
        conflict = session.history.conflict
        return refusals.conflict(session.label(conflict.owner), session.label(conflict.other))
    if transaction is not None and transaction.stable_since is not None and statement.reads_data:
        other = session.history.other_after(transaction.stable_since, client.number)
        if other is not None:
            return refusals.unstable(session.label(other))
    if is_sole and not client.in_transaction and statement.kind in _NEED_TRANSACTION:
        if not statement.is_holdable:
            return refusals.needs_transaction(_NEED_TRANSACTION[statement.kind])
    return None


def _unreadable(client: Client, statement: Statement) -> bytes | None:
    """Return the error that what *statement* reads is a cursor no more, or a portal that the sandbox has run itself."""
    cursor = names.cursor_of(client, statement)
    if cursor is not None and cursor.undone_by:
        return refusals.cursor_undone(client.label, cursor.undone_by)
    if cursor is not None and cursor.is_held and (word := statement.current_of) is not None:
        return refusals.held(word.name)
    name = statement.name.encode("latin-1")
    portal = client.portals.get(name) if statement.kind is Kind.CURSOR else None
    return refusals.has_run(name) if portal is not None and portal.has_run else None


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


def miscounted(name: bytes, prepared: Prepared, rest: bytes) -> bytes | None:
    """Return the error that a Bind does not fit its statement: in a failed transaction the server is not asked.

    Args:
        name: The client's name of the statement.
        prepared: The statement.
        rest: What follows the names in the body of Bind.

    Raises:
        ProtocolViolation: It is cut short.
    """
    try:
        formats = wire.int16(rest)
        values = wire.int16(rest, 2 + 2 * formats)
    except struct.error as error:
        raise wire.ProtocolViolation("insufficient data left in message") from error
    if formats > 1 and formats != values:
        return wire.error("08P01", f"bind message has {formats} parameter formats but {values} parameters")
    text, types = wire.cstring(prepared.rest)
    is_analysed = prepared.statement is None or prepared.statement.kind is not Kind.PREPARE
    words = (token.text for token in tokens(text.decode("latin-1"))) if is_analysed else ()
    wanted = max(wire.int16(prepared.rest, types), *(int(word[1:]) for word in words if _PARAMETER.fullmatch(word)), 0)
    if values == wanted:
        return refusals.IN_FAILED if wanted else None
    return wire.error(
        "08P01",
        f'bind message supplies {values} parameters, but prepared statement "{shown(name)}" requires {wanted}',
    )


def warning(client: Client, statement: Statement, *, is_sole: bool) -> bytes:
    """Return the notice that the server would send with *statement* for want of BEGIN, empty if none."""
    command = _WARN_OUTSIDE.get(statement.kind)
    if command is None or not is_sole or client.in_transaction:
        return b""
    return client.warning("25P01", f"{command} can only be used in transaction blocks")

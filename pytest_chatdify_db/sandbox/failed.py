"""What is refused while a client's transaction has failed; the shared session itself has gone back and would do it.

The rule: the server is not asked, so that each message is looked at in the order, and refused with the errors, of
PostgreSQL's own ``exec_bind_message`` and its neighbours.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import refusals
from pytest_chatdify_db.sandbox.client import Client, Prepared
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH, tokens
from pytest_chatdify_db.sandbox.statement import EXITS, Kind, Statement
from pytest_chatdify_db.sandbox.texts import shown

_PARAMETER: Final = re.compile(r"\$[0-9]+")


def objection(client: Client, statement: Statement | None) -> bytes | None:
    """Return the error of anything but the statements that leave a failed transaction.

    Args:
        client: Whose transaction may have failed.
        statement: What it wants to run; None if that cannot be told.
    """
    transaction = client.transaction
    if transaction is None or not transaction.failed or (statement is not None and statement.kind in EXITS):
        return None
    return refusals.lost(transaction.lost) if transaction.lost else refusals.IN_FAILED


def binding(client: Client, portal: bytes, name: bytes, prepared: Prepared | None, rest: bytes) -> bytes | None:
    """Return the error of a Bind.

    Args:
        client: Who sends it.
        portal: The name of the portal.
        name: The name of the statement.
        prepared: The statement, if there is one of that name.
        rest: What follows the names in the message.

    Raises:
        ProtocolViolation: The message is cut short.
    """
    if client.transaction is None or not client.transaction.failed:
        return None
    if prepared is None:
        return wire.error("26000", f'prepared statement "{shown(name)}" does not exist')
    if (miscounted := _miscounted(name, prepared, rest)) is not None:
        return miscounted
    if (error := objection(client, prepared.statement)) is not None:
        return error
    if portal[:NAME_LENGTH] in client.cursors:
        return wire.error("42P03", f'cursor "{shown(portal)}" already exists')
    return None


def description(client: Client, prepared: Prepared | None) -> bytes | None:
    """Return the error of a description of rows; that of no rows is given."""
    statement = prepared.statement if prepared is not None else None
    return objection(client, statement) if statement is not None and statement.returns_rows else None


def is_without_rows(client: Client, portal: bytes) -> bool:
    """Return whether a portal is described as one without rows, though the server has it no more."""
    if client.transaction is None or not client.transaction.failed:
        return False
    bound = client.portals.get(portal)
    return bound is not None and bound.prepared is not None and description(client, bound.prepared) is None


def reading(client: Client, cursor: bytes) -> bytes | None:
    """Return the error that a cursor is not read which SQL has declared."""
    is_declared = cursor in client.cursors and cursor not in client.portals
    return objection(client, None) if is_declared else None


def _miscounted(name: bytes, prepared: Prepared, rest: bytes) -> bytes | None:
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

"""Prepared statements and cursors as SQL names them: what a client's names are called on the server.

The rule: statements have the client's prefix, always; cursors only where two clients use the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.quoting import quote_name
from pytest_chatdify_db.sandbox import texts
from pytest_chatdify_db.sandbox.client import Client, Cursor, Prepared
from pytest_chatdify_db.sandbox.cursors import Cursors
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH, Token
from pytest_chatdify_db.sandbox.statement import Kind, Statement
from pytest_chatdify_db.sandbox.texts import Parts, Replacement, Text

_STATEMENTS: Final = frozenset({Kind.PREPARE, Kind.EXECUTE, Kind.DEALLOCATE})
_CURSORS: Final = frozenset({Kind.DECLARE, Kind.CURSOR, Kind.CLOSE})
_INNER = re.compile(r"\bas\b", re.IGNORECASE)


def text_for_server(
    client: Client, text: bytes, parts: Parts, cursors: Cursors | None, start: int = 0, end: int = -1
) -> Text:
    """Return the part of a client's query *text* that holds the statements of *parts*, as it goes to the server.

    Args:
        client: Who sent it.
        text: All of it.
        parts: What that part says, and where each statement begins in *text*.
        cursors: The cursors of the session, None if the client has a session of its own.
        start: Where the part begins.
        end: Where it ends; by default that is the end of the text.
    """
    end = len(text) if end < 0 else end
    if len(parts) == 1 and parts[0][0].is_plain_read:
        return Text(text, start, end, (), client.is_utf8)
    found = [
        Replacement(at + first, at + last, words)
        for statement, at in parts
        for first, last, words in _replacements(client, statement, cursors)
    ]
    return Text(text, start, end, tuple(found), client.is_utf8)


def prepare(client: Client, body: bytes, cursors: Cursors | None) -> tuple[bytes, Prepared]:
    """Return the name by which the client has the statement that a Parse *body* defines, and the statement.

    Raises:
        ProtocolViolation: The body is cut short.
    """
    name, after = wire.cstring(body)
    original, rest_at = wire.cstring(body, after)
    found = texts.parts(client.readable(original))
    statement = found[0][0] if len(found) == 1 else None
    text = text_for_server(client, original, found, cursors)
    rest = text.sent + body[rest_at - 1 :]
    server_name = client.server_name(name) if name else b""
    return name[:NAME_LENGTH], Prepared(server_name, rest, statement, text if text.replaced else None)


def cursor_of(client: Client, statement: Statement) -> Cursor | None:
    """Return the client's cursor that *statement* reads or speaks of, other than to close it; None if there is none."""
    if statement.kind is Kind.CURSOR:
        return client.cursors.get(statement.name.encode("latin-1"))
    if (word := statement.current_of) is not None:
        return client.cursors.get(word.name.encode("latin-1"))
    return None


def prepared_by_sql(client: Client, statement: Statement) -> Prepared:
    """Return what PREPARE defines, as Parse would define it."""
    _, end = statement.name_at
    inner = _INNER.search(statement.text, end)
    text = statement.text[inner.end() :] if inner is not None else ""
    name = client.server_name(statement.name.encode("latin-1"))
    return Prepared(name, text.encode("latin-1") + b"\0" + wire.pack_int16(0), None)


def _replacements(client: Client, statement: Statement, cursors: Cursors | None) -> Iterator[tuple[int, int, bytes]]:
    if statement.kind in _STATEMENTS:
        yield *statement.name_at, _renamed(client, Token(statement.text[slice(*statement.name_at)], *statement.name_at))
    elif cursors is None:
        return
    elif statement.kind in _CURSORS:
        yield from _cursor(client, Token(statement.text[slice(*statement.name_at)], *statement.name_at), cursors)
    elif (word := statement.current_of) is not None:
        yield from _cursor(client, word, cursors)


def _cursor(client: Client, word: Token, cursors: Cursors) -> Iterator[tuple[int, int, bytes]]:
    own = word.name.encode("latin-1")
    if cursors.server_name(client, own) != own:
        yield word.start, word.end, _renamed(client, word)


def _renamed(client: Client, word: Token) -> bytes:
    """Return what is said instead of *word*, by which the client names a statement or cursor."""
    identifier = word.identifier if word.identifier != word.name else ""
    server_name = client.server_name(word.name.encode("latin-1"), identifier.encode("latin-1"))
    return quote_name(server_name.decode("latin-1")).encode("latin-1")

"""Prepared statements that hold nothing, such as the ``;`` by which pools of asyncpg ask whether a connection lives.

The rule: the server has no part in the plain ones, which are answered as it answers them, in any state of a
transaction. Whatever is unusual about one (parameters, a portal with a name) is left to the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import sql
from pytest_chatdify_db.sandbox.client import Client, Portal, Prepared
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH
from pytest_chatdify_db.sandbox.messages import BIND, DESCRIBE, EXECUTE, PARSE, Message

_NO_PARAMETERS: Final = wire.message(b"t", wire.pack_int16(0))
_NONE: Final = wire.pack_int16(0)


def answer(client: Client, message: Message) -> Callable[[], bytes] | None:
    """Return what does as *message* says and gives the answer, None if it is not about an empty statement.

    Raises:
        ProtocolViolation: The message is cut short.
    """
    kind, body = message
    if kind == PARSE:
        return _parse(client, body)
    has_failed = client.transaction is not None and client.transaction.failed  # then it must not be bound, nor run
    if not client.has_local or has_failed:
        return None
    if kind == BIND:
        return _bind(client, body)
    if kind == EXECUTE:
        return (lambda: wire.EMPTY_QUERY) if body[:1] == b"\0" and _is_local(client.portals.get(b"")) else None
    if kind == DESCRIBE and body == b"P\0":
        return (lambda: wire.NO_DATA) if _is_local(client.portals.get(b"")) else None
    if kind == DESCRIBE and body[:1] == b"S":
        prepared = client.statements.get(wire.cstring(body, 1)[0][:NAME_LENGTH])
        return (lambda: _NO_PARAMETERS + wire.NO_DATA) if prepared is not None and prepared.is_local else None
    return None


def _parse(client: Client, body: bytes) -> Callable[[], bytes] | None:
    called, after = wire.cstring(body)
    name = called[:NAME_LENGTH]
    text, end = wire.cstring(body, after)
    if (name and name in client.statements) or body[end:] != _NONE or not body.isascii() or sql.parse(text):
        return None

    def prepare() -> bytes:
        server_name = client.server_name(called) if called else b""
        client.statements[name] = Prepared(server_name, body[after:], None, is_local=True)
        client.has_local = True
        return wire.PARSE_COMPLETE

    return prepare


def _bind(client: Client, body: bytes) -> Callable[[], bytes] | None:
    portal, after = wire.cstring(body)
    name, after = wire.cstring(body, after)
    prepared = client.statements.get(name[:NAME_LENGTH])
    if prepared is None or not prepared.is_local or portal or b"" in client.cursors:
        return None
    formats = body[after:]
    one_at_most = formats[:2] == _NONE or formats[:2] == wire.pack_int16(1)
    values = formats[2 + 2 * (formats[1:2] == b"\1") :]
    if not one_at_most or values[:2] != _NONE or len(values) not in {4, 6} or values[2:4] not in {_NONE, b"\0\1"}:
        return None

    def bind() -> bytes:
        client.portals[b""] = Portal(prepared)
        return wire.BIND_COMPLETE

    return bind


def _is_local(portal: Portal | None) -> bool:
    return portal is not None and portal.prepared is not None and portal.prepared.is_local

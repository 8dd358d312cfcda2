"""What drivers say around most statements, answered on the spot: BEGIN, COMMIT, ROLLBACK, and the question of pools.

The rule: only while nobody else is served, only in the words of drivers, and only where the long way (``simple``,
``control``) would need nothing of the server and say just that; whatever is in doubt goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.ledger import Ledger
from pytest_chatdify_db.sandbox.messages import QUERY, Message

Answer = Callable[[Ledger, Client, bytes], bytes]

#: What the server says to ``SELECT 1``.
_PONG: Final = (
    wire.message(b"T", b"\0\1?column?\0" + bytes(4) + bytes(2) + wire.pack_int32(23) + b"\0\4" + b"\xff" * 4 + b"\0\0")
    + wire.message(b"D", b"\0\1\0\0\0\x011")
    + wire.command_complete("SELECT 1")
)
_BEGUN: Final = wire.command_complete("BEGIN")
_COMMITTED: Final = wire.command_complete("COMMIT")
_ROLLED_BACK: Final = wire.command_complete("ROLLBACK")


def serve(ledger: Ledger, client: Client, unit: Sequence[Message]) -> bool:
    """Serve *unit*, if this is the way for it; return whether it is."""
    if len(unit) != 1 or unit[0].kind != QUERY or (answer := _ANSWERS.get(unit[0].body)) is None:
        return False
    if client.skips or client.mid_pipeline or client.copying is not None or client.cursors:
        return False
    if not (said := answer(ledger, client, unit[0].body[:-1])):
        return False
    ledger.close_unnamed(client)
    client.send(said)
    ledger.ready(client)
    return True


def _ping(_session: Ledger, client: Client, _text: bytes) -> bytes:
    return _PONG if client.transaction is None and not client.parameters.identity else b""


def _begin(ledger: Ledger, client: Client, text: bytes) -> bytes:
    if client.transaction is not None or "default_transaction_isolation" in client.parameters.effective:
        return b""
    client.runs(text)
    ledger.begin(client).implicit = False
    return _BEGUN


def _commit(ledger: Ledger, client: Client, text: bytes) -> bytes:
    transaction = client.transaction
    if transaction is None or transaction.implicit or transaction.failed or ledger.must_check(transaction):
        return b""
    client.runs(text)
    ledger.keep(client, transaction)
    return _COMMITTED


def _roll_back(ledger: Ledger, client: Client, text: bytes) -> bytes:
    if not client.in_transaction:
        return b""
    client.runs(text)
    ledger.roll_back(client)
    return _ROLLED_BACK


_ANSWERS: Final[Mapping[bytes, Answer]] = {
    b"SELECT 1\0": _ping,
    b"BEGIN\0": _begin,
    b"BEGIN;\0": _begin,
    b"COMMIT\0": _commit,
    b"COMMIT;\0": _commit,
    b"ROLLBACK\0": _roll_back,
    b"ROLLBACK;\0": _roll_back,
}

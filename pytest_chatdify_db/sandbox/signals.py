"""LISTEN and NOTIFY among the clients of one session: nothing is heard before the COMMIT of whoever says it.

The rule: the server checks the statements and the sandbox delivers, since the transaction in which the server would do
so is never committed. What is notified inside a function or trigger is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.lexer import Token, arguments
from pytest_chatdify_db.sandbox.statement import SIGNALS, Kind, Statement
from pytest_chatdify_db.sandbox.transactions import Signal

_VERBS: Final = {Kind.LISTEN: "listen", Kind.UNLISTEN: "unlisten", Kind.UNLISTEN_ALL: "unlisten", Kind.NOTIFY: "notify"}


def signals(statement: Statement, values: Sequence[str | None] = ()) -> list[Signal]:
    """Return what *statement* wants to hear or to tell; *values* are those bound to its ``$1``, ``$2``, ..."""
    if statement.kind in SIGNALS:
        channel = "*" if statement.kind is Kind.UNLISTEN_ALL else statement.name
        return [Signal(_VERBS[statement.kind], channel, statement.argument)]
    if "pg_notify" not in statement.calls:
        return []
    calls = (
        given for given in arguments(statement.text, "pg_notify") if len(given) == 2 and all(map(_is_plain, given))
    )
    pairs = ((_read(channel, values), _read(payload, values)) for channel, payload in calls)
    return [Signal("notify", channel, payload or "") for channel, payload in pairs if channel]


def _is_plain(argument: Sequence[Token]) -> bool:
    """Return whether *argument* is a string constant or a parameter, and no more than cast."""
    if not argument or (len(argument) > 1 and argument[1].text != ":"):
        return False
    return argument[0].text.startswith("$") or argument[0].text.endswith("'")


def _read(argument: Sequence[Token], values: Sequence[str | None]) -> str | None:
    first = argument[0]
    if first.text[1:].isdigit():
        at = int(first.text[1:]) - 1
        return values[at] if 0 <= at < len(values) else None
    return first.literal


def deliver(clients: Mapping[int, Client], sender: Client, committed: Iterable[Signal]) -> None:
    """Do what a transaction of *sender* said about channels, now that it is committed."""
    told: dict[Signal, None] = {}
    for signal in committed:
        if signal.verb == "notify":
            told[signal] = None  # the same word twice in a transaction is heard once
        elif signal.verb == "listen":
            sender.channels.add(signal.channel)
        elif signal.channel == "*":
            sender.channels.clear()
        else:
            sender.channels.discard(signal.channel)
    for _, channel, payload in told:
        body = wire.pack_int32(sender.number) + channel.encode("latin-1") + b"\0" + payload.encode("latin-1") + b"\0"
        for client in clients.values():
            if channel in client.channels:
                client.notify(wire.message(b"A", body))

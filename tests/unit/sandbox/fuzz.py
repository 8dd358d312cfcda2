"""Any bytes from clients, against the sandbox without its sockets and a server that is played.

The invariant: the core raises nothing, asks the server nothing that has no answer, answers every Sync and Query that it
was sent or says goodbye, and what it says is made of whole messages. ``python -m tests.unit.sandbox.fuzz --inputs
1000000`` tries a million inputs; an input is given back by its number (``--first 17 --inputs 1``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client, Stage

from .table import Table

#: What the sandbox itself says to the server, which must succeed.
_OWN: Final = ("SAVEPOINT", "ROLLBACK", "RELEASE", "BEGIN", "SELECT pg_catalog.", "RESET", ";", "DROP TABLE IF", "DO '")

_TEXTS: Final = (
    "select 1",
    "insert into t values (1)",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "release a",
    "begin; insert into t values (1); commit",
    "begin work work",
    "copy t from stdin",
    "copy t to stdout",
    "copy t from stdin; select 1; copy t from stdin",
    "set timezone = 'UTC'",
    "set local x.y = '1'",
    "reset all",
    "discard all",
    "declare c cursor with hold for select 1",
    "fetch c",
    "close c",
    "close all",
    "prepare p as select 1",
    "execute p",
    "deallocate p",
    "listen a",
    "notify a, 'b'",
    "select pg_notify($1, $2), set_config($1, $2, true)",
    "select $$ unterminated",
    "/* unterminated",
    "'",
    "",
    ";;",
    "create temp table x (id int) on commit drop",
    "create temp table y (id int)",
    "select * from y",
    "drop table y",
    "discard temp",
    "set constraints all immediate",
    "set statement_timeout = 1",
    "\xe4\xff\x80",
)


@dataclass(slots=True)
class PlayedServer:
    """Answers as a server might: by chance with success or an error, to the sandbox's own words always with success.

    Args:
        random: Where chance comes from.
    """

    random: Random
    _skips: bool = False
    _copies: bytes = b""
    _statements: dict[bytes, bytes] = field(default_factory=dict)
    _portals: dict[bytes, bytes] = field(default_factory=dict)

    def answer(self, data: bytes) -> bytes:
        """Return what the server says to *data*, which is made of whole messages."""
        out = bytearray()
        at = 0
        while at < len(data):
            end = at + 1 + wire.int32(data, at + 1)
            assert end <= len(data), "the server was sent a part of a message"
            out += self._one(data[at : at + 1], data[at + 5 : end])
            at = end
        return bytes(out)

    def _one(self, kind: bytes, body: bytes) -> bytes:
        if self._copies:
            return self._copy(kind)
        if kind in b"QF":
            return self._query(body)
        if kind == b"S":
            self._skips = False
            return wire.READY["T"]
        if self._skips or kind in b"dcfH":
            return b""
        if self.random.random() < 0.15 and kind != b"C":
            self._skips = True
            return wire.error("XX000", "by chance")
        if kind == b"P":
            name, at = wire.cstring(body)
            self._statements[name] = wire.cstring(body, at)[0]
        elif kind == b"B":
            portal, at = wire.cstring(body)
            self._portals[portal] = self._statements.get(wire.cstring(body, at)[0], b"")
        elif kind == b"C":
            (self._portals if body[:1] == b"P" else self._statements).pop(body[1:-1], None)
        elif kind == b"E" and self._portals.get(wire.cstring(body)[0]) == b"copy t from stdin":
            self._copies = b"E"
            return wire.message(b"G", bytes(3))
        answers = {
            b"P": wire.PARSE_COMPLETE,
            b"B": wire.BIND_COMPLETE,
            b"C": wire.CLOSE_COMPLETE,
            b"D": wire.NO_DATA if body[:1] == b"P" else wire.message(b"t", bytes(2)) + wire.NO_DATA,
            b"E": self.random.choice([wire.command_complete("SELECT 0"), wire.PORTAL_SUSPENDED, wire.EMPTY_QUERY]),
        }
        return answers[kind]

    def _copy(self, kind: bytes) -> bytes:
        if kind not in b"cf":
            return b""
        by, self._copies = self._copies, b""
        if kind == b"f":
            self._skips = by == b"E"
            return wire.error("57014", "COPY from stdin failed") + (wire.READY["T"] if by == b"Q" else b"")
        return wire.command_complete("COPY 0") + (wire.READY["T"] if by == b"Q" else b"")

    def _query(self, body: bytes) -> bytes:
        text = body[:-1].decode("latin-1")
        if text == "!":
            return wire.error("42601", "syntax error") + wire.READY["E"]
        if text.startswith(_OWN):
            count = text.count("current_setting(")
            values = b"".join(wire.pack_int32(1) + b"x" for _ in range(count))
            row = wire.message(b"D", wire.pack_int16(count) + values) if count else b""
            return row + wire.command_complete("SELECT 1") + wire.READY["T"]
        if text.lower().startswith("copy") and "from stdin" in text and self.random.random() < 0.8:
            self._copies = b"Q"
            return wire.message(b"G", bytes(3))
        if self.random.random() < 0.2:
            return wire.error("XX000", "by chance") + wire.READY["E"]
        notice = wire.notice("00000", "by chance") if self.random.random() < 0.1 else b""
        status = wire.parameter_status("TimeZone", "UTC") if self.random.random() < 0.1 else b""
        return notice + wire.command_complete("SELECT 1") + status + wire.READY["T"]


def message(random: Random) -> bytes:
    """Return a message of a client: most are right, some have any body or any type."""
    text = random.choice(_TEXTS).encode("latin-1")
    name = random.choice([b"", b"", b"s", b"c"])
    kind = random.choice(b"QQQPPPBBBEEEDCSSSHFdcf" if random.random() < 0.95 else range(256))
    right = {
        81: text + b"\0",
        80: name + b"\0" + text + b"\0\0\0",
        66: name + b"\0" + random.choice([b"", b"s"]) + b"\0" + bytes(4) + bytes(2),
        69: name + b"\0" + bytes(3) + random.choice([b"\0", b"\1"]),
        68: random.choice([b"S", b"P"]) + name + b"\0",
        67: random.choice([b"S", b"P"]) + name + b"\0",
        70: bytes(10),
        102: b"no\0",
    }
    body = right.get(kind, b"")
    chance = random.random()
    if chance < 0.04:
        body = random.randbytes(random.randint(0, 20))
    elif chance < 0.08:
        body = body[: random.randint(0, len(body))]
    return wire.message(bytes((kind,)), body)


def attempt(seed: int) -> None:
    """Try the input number *seed*.

    Raises:
        AssertionError: The core has broken its word; any other exception is one that it should not have raised.
    """
    random = Random(seed)
    table = Table(PlayedServer(random), random)
    if random.random() < 0.1:
        client = table.core.connected()
        table.feed(client, random.randbytes(random.randint(0, 40)))
        return
    clients = [table.join() for _ in range(random.randint(1, 3))]
    for client in clients:
        assert table.heard(client)[-1] == wire.READY["I"], "no greeting"
    if random.random() < 0.5:
        table.core.ask(lambda: table.core.push("a frame"), lambda _: None)
    garbled: set[int] = set()
    for _ in range(random.randint(1, 12)):
        client = random.choice(clients)
        data = b"".join(message(random) for _ in range(random.randint(1, 4)))
        if random.random() < 0.05:
            data = random.randbytes(random.randint(1, 30))
            garbled.add(client.number)
        cut = random.randint(0, len(data))
        table.feed(client, data[:cut])
        if random.random() < 0.1 and client.stage is not Stage.ENDED:
            table.core.received(client, data[cut:])
            table.core.run()
            table.core.cancel(client.number, client.key)
            table.settle()
        else:
            table.feed(client, data[cut:])
        if random.random() < 0.05:
            table.core.closed(client)
            table.settle()
    for client in clients:
        _check_end(table, client, is_garbled=client.number in garbled)


def _check_end(table: Table, client: Client, *, is_garbled: bool) -> None:
    """Check that the client is answered, or has been told that it is over."""
    table.heard(client)
    table.feed(client, wire.message(b"c") + wire.SYNC)
    messages = table.heard(client)
    if client.stage is not Stage.ENDED and not is_garbled:  # garbage may be the head of a long message
        assert messages, "a Sync that is not answered"
        assert messages[-1][:1] == b"Z", f"no ReadyForQuery: {messages[-1]!r}"


def main(arguments: Sequence[str]) -> int:
    """Try many inputs; return an exit code."""
    parser = argparse.ArgumentParser(description="Feed the sandbox's core with any bytes.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args(arguments)
    for seed in range(given.first, given.first + given.inputs):
        try:
            attempt(seed)
        except Exception:
            print(f"input {seed} failed")
            raise
    print(f"{given.inputs} inputs, no exception, no hang")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

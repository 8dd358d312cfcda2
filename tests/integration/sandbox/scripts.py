"""Scripts of protocol messages as text: read, turned into bytes, and answers written back as text. Pure.

A script is a block of lines under a title. Each line is one message of a client, in the order they are sent::

    == a constraint that fails
    # comment
    A: Q insert into items (id) values (1)
    B: P name:23,25 select $1, $2     Parse; the parameter types are optional, "-" is the empty name
    B: B portal name 1 null 'a b'     Bind; values in text form, "!b" asks for binary results
    B: D s name | D p portal          Describe
    B: E portal 5                     Execute, with a row limit
    B: C s name | C p portal          Close
    B: S | H | X                      Sync, Flush, Terminate
    B: d 1\\ta\\n | c | f reason        CopyData, CopyDone, CopyFail
    B: F 1598                         FunctionCall of a function without arguments
    B: raw Q 73656c                   any type byte and a body in hexadecimal
    B: connect application_name=x     the start-up packet, if it is not the usual one
    B: wait A                         read until a message of that type has come

Indented lines continue a query. Query, Sync, Flush and the end of a COPY wait for their answers; a ``~`` before a
message has it wait for nothing and be sent together with the next. Lines that begin with ``|`` under a message say
what the sandbox answers where the design has it differ from the server.
"""  # noqa: D301 - a backslash of a script is written twice here, as Python needs it

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.postgres import wire

EMPTY_NAME: Final = "-"

#: The answers that end what a message asks for; used to know when a Flush has been answered.
_ANSWERS: Final = {"P": "1", "B": "2", "C": "3", "D": "Tn", "E": "CsIG"}


class BadScript(ValueError):
    """A script that cannot be read; the text names the line."""


@dataclass(slots=True)
class Step:
    """One message of one client.

    Args:
        client: Its letter.
        kind: The mnemonic of the message.
        rest: What follows it in the line.
        holds: Whether it is sent together with the next message.
        expected: What the sandbox answers, where that is not what the server answers.
    """

    client: str
    kind: str
    rest: str
    holds: bool = False
    expected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.client}: {'~' if self.holds else ''}{self.kind} {self.rest}".rstrip()

    @property
    def ends(self) -> str:
        """The types of answers that end this message, empty if they cannot be told."""
        return _ANSWERS.get(self.kind, "")

    @property
    def data(self) -> bytes:
        """The message as it is sent.

        Raises:
            BadScript: The line is not written as it should be.
        """
        try:
            return _encode(self.kind, self.rest)
        except (ValueError, IndexError, KeyError) as problem:
            raise BadScript(f"{self}: {problem}") from problem


@dataclass(slots=True)
class Script:
    """A title and what is sent under it."""

    title: str
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"== {self.title}", *map(str, self.steps)])


def read(text: str) -> Iterator[Script]:
    """Yield the scripts of a corpus file.

    Raises:
        BadScript: A line is no part of a script.
    """
    script: Script | None = None
    for line in text.splitlines():
        if line.startswith("=="):
            if script is not None:
                yield script
            script = Script(line[2:].strip())
        elif not line.strip() or line.startswith("#"):
            continue
        elif script is None:
            raise BadScript(f"a line before the first title: {line}")
        elif line.startswith("|"):
            script.steps[-1].expected.append(line[1:].strip())
        elif line[0] == " ":
            script.steps[-1].rest += "\n" + line.strip()
        else:
            script.steps.append(_step(line))
    if script is not None:
        yield script


def _step(line: str) -> Step:
    client, colon, message = line.partition(": ")
    if not colon or len(client) != 1:
        raise BadScript(f"not a line of a script: {line}")
    holds = message.startswith("~")
    kind, _, rest = message.lstrip("~").partition(" ")
    return Step(client, kind, rest, holds)


# -- What a client sends


def _encode(kind: str, rest: str) -> bytes:
    if kind == "Q":
        return wire.query(rest)
    if kind == "P":
        return _parse(rest)
    if kind == "B":
        return _bind(shlex.split(rest))
    if kind in {"D", "C"}:
        sort, name = rest.split()
        return wire.message(kind.encode(), sort.upper().encode() + _name(name))
    if kind == "E":
        portal, limit = [*rest.split(), "0"][:2]
        return wire.message(b"E", _name(portal) + wire.pack_int32(int(limit)))
    if kind in {"S", "H", "X", "c"}:
        return wire.message(kind.encode())
    if kind == "d":
        return wire.message(b"d", rest.encode().decode("unicode_escape").encode("latin-1"))
    if kind == "f":
        return wire.message(b"f", rest.encode() + b"\0")
    if kind == "F":
        return wire.message(b"F", wire.pack_int32(int(rest)) + bytes(6))
    if kind == "raw":
        letter, _, body = rest.partition(" ")
        return wire.message(letter.encode(), bytes.fromhex(body))
    raise ValueError("no such message")


def _name(name: str) -> bytes:
    return b"\0" if name == EMPTY_NAME else name.encode() + b"\0"


def _parse(rest: str) -> bytes:
    named, _, text = rest.partition(" ")
    name, _, types = named.partition(":")
    oids = [int(oid) for oid in types.split(",") if oid]
    body = _name(name) + text.encode() + b"\0" + wire.pack_int16(len(oids))
    return wire.message(b"P", body + b"".join(map(wire.pack_int32, oids)))


def _bind(words: list[str]) -> bytes:
    is_binary = "!b" in words
    portal, statement, *values = [word for word in words if word != "!b"]
    body = _name(portal) + _name(statement) + wire.pack_int16(0) + wire.pack_int16(len(values))
    for value in values:
        encoded = value.encode()
        body += wire.pack_int32(-1) if value == "null" else wire.pack_int32(len(encoded)) + encoded
    body += wire.pack_int16(1) + wire.pack_int16(1) if is_binary else wire.pack_int16(0)
    return wire.message(b"B", body)


# -- What comes back

#: Messages whose body is text alone, or nothing.
_PLAIN: Final = "123nsIcCZ"


def split(data: bytes) -> Iterator[bytes]:
    """Yield the messages in *data*."""
    at = 0
    while at < len(data):
        end = at + 1 + wire.int32(data, at + 1)
        yield data[at:end]
        at = end


def show(message: bytes) -> str:
    """Return *message* in a readable line."""
    kind, body = chr(message[0]), message[5:]
    if kind in _PLAIN:
        return f"{kind} {body.rstrip(bytes(1)).decode('latin-1')}".strip()
    if kind in {"E", "N"}:
        fields = wire.error_fields(body)
        more = "".join(f" {code}={value}" for code, value in fields.items() if code not in "SVCM")
        return f"{kind} {fields.get('C')} {fields.get('M')}{more}"
    if kind == "D":
        values = ("null" if v is None else v.decode("latin-1") for v in wire.row_values(body))
        return "D " + " ".join(values)
    if kind == "S":
        return "S " + body[:-1].replace(b"\0", b"=").decode("latin-1")
    if kind == "A":
        channel, at = wire.cstring(body, 4)
        return f"A {channel.decode()} {wire.cstring(body, at)[0].decode()}"
    return f"{kind} {body.hex()}"


class Normaliser:
    """Takes out of the answers what differs between any two sessions of the same server.

    These and nothing else: process ids and keys; oids of objects that the script created; where in the server's source
    an error was raised; and the order of parameter reports that come together, which follows the order of their names
    in a list of the server's.
    """

    def __init__(self) -> None:
        self._clients: dict[bytes, bytes] = {}
        self._oids: dict[int, int] = {}

    def knows(self, pid: bytes, client: str) -> None:
        """Note the process id of a client."""
        self._clients[pid] = client.encode()

    def apply(self, messages: Iterable[bytes]) -> list[bytes]:
        """Return *messages* normalised; the authentication's are left out."""
        reports: list[bytes] = []
        result: list[bytes] = []
        for message in messages:
            kind = message[:1]
            if kind == b"S":
                reports.append(message)
                continue
            result += sorted(reports)
            reports.clear()
            if kind != b"R":
                result.append(self._one(kind, message))
        return result + sorted(reports)

    def _one(self, kind: bytes, message: bytes) -> bytes:
        if kind == b"K":
            return wire.message(b"K", bytes(len(message) - 5))
        if kind == b"A":
            return wire.message(b"A", self._clients.get(message[5:9], b"?") + message[9:])
        if kind in {b"E", b"N"}:
            fields = message[5:-2].split(b"\0")
            return wire.message(kind, b"\0".join(field for field in fields if field[:1] not in b"FLR") + b"\0\0")
        if kind == b"T":
            return self._row_description(message)
        return message

    def _row_description(self, message: bytes) -> bytes:
        result = bytearray(message)
        at = 7
        for _ in range(wire.int16(message, 5)):
            _, at = wire.cstring(message, at)
            for offset in (at, at + 6):
                oid = wire.int32(message, offset)
                if oid >= 16384:
                    result[offset : offset + 4] = wire.pack_int32(self._oids.setdefault(oid, len(self._oids) + 16384))
            at += 18
        return bytes(result)

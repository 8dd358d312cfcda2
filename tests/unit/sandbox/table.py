"""The sandbox without its sockets: its core, its clients, and a server that answers as a script says.

What a test writes down is what a client sends, what the server answers where that is not plain success, and what both
get to hear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.catalog import Catalog
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.core import Core, Job, Unavailable
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.lexer import split
from pytest_chatdify_db.sandbox.login import Identity
from pytest_chatdify_db.sandbox.messages import Memory, Store
from tests.integration.sandbox.scripts import Step, show

REPORTED: Final = {"client_encoding": "UTF8", "TimeZone": "UTC", "is_superuser": "on", "server_version": "18.4"}

#: What a client says when it is asked for its password.
PASSWORD: Final = wire.message(b"p", b"pw\0")

#: What a server begins COPY FROM STDIN with, in text format and one column.
COPY_IN: Final = wire.message(b"G", b"\0" + wire.pack_int16(1) + wire.pack_int16(0))


def messages(data: bytes | bytearray) -> Iterator[tuple[str, bytes]]:
    """Yield type and body of the messages in *data*, which must be whole."""
    data = bytes(data)
    at = 0
    while at < len(data):
        end = at + 1 + wire.int32(data, at + 1)
        assert end <= len(data), f"a part of a message: {data[at:]!r}"
        yield chr(data[at]), data[at + 5 : end]
        at = end


def row(*values: str | None) -> bytes:
    """Return a DataRow."""
    cells = (wire.pack_int32(-1) if v is None else wire.pack_int32(len(v)) + v.encode() for v in values)
    return wire.message(b"D", wire.pack_int16(len(values)) + b"".join(cells))


class Server(Protocol):
    """Who plays the server."""

    def answer(self, data: bytes) -> bytes:
        """Return what is said to *data*, which is made of whole messages."""


@dataclass(slots=True)
class ScriptedServer:
    """Answers everything with success, but for what it was told of.

    Args:
        heard: The texts of queries and of executed statements, in order.
        status: The transaction status it tells.
    """

    heard: list[str] = field(default_factory=list)
    status: str = "I"
    _told: list[tuple[str, str, bytes]] = field(default_factory=list)
    _statements: dict[bytes, str] = field(default_factory=dict)
    _portals: dict[bytes, str] = field(default_factory=dict)
    _skips: bool = False
    _copies: str = ""

    def on(self, text: str, *answer: bytes, at: str = "QE") -> None:
        """Answer *answer*, once, to the next message of a type in *at* that holds *text*."""
        self._told.append((text, at, b"".join(answer)))

    def answer(self, data: bytes) -> bytes:
        """Return what the server says to *data*."""
        return b"".join(self._one(kind, body) for kind, body in messages(data))

    def _one(self, kind: str, body: bytes) -> bytes:
        if kind == "S":
            self._skips = False
            return self._ready()
        if self._copies or kind in "dcf":
            return self._copy(kind, body)
        if self._skips:
            return b""
        if kind in "QF":
            said = self._query(body[:-1].decode("latin-1") if kind == "Q" else "function call")
            return said if said == COPY_IN else said + self._ready()
        said = self._extended(kind, body)
        self._skips = said[:1] == b"E"
        return said

    def _ready(self) -> bytes:
        return wire.READY[self.status]

    def _scripted(self, kind: str, text: str) -> bytes | None:
        for at, (part, kinds, answer) in enumerate(self._told):
            if part in text and kind in kinds:
                del self._told[at]
                if any(each == "E" for each, _ in messages(answer)):
                    self.status = "E"
                return answer
        return None

    def _query(self, text: str) -> bytes:
        self.heard.append(text)
        if (scripted := self._scripted("Q", text)) is not None:
            if scripted == COPY_IN:
                self._copies = "Q"
            return scripted
        if text == "!":
            self.status = "E"
            return wire.error("42601", "syntax error")
        for word in text.upper().split(";"):
            if word in {"BEGIN", "ROLLBACK"}:
                self.status = "T" if word == "BEGIN" else "I"
            elif word.startswith("ROLLBACK TO"):
                self.status = "T"
        values = ["x"] * text.count("current_setting(")
        return (row(*values) if values else b"") + b"".join(map(_tag, split(text)))

    def _extended(self, kind: str, body: bytes) -> bytes:
        name, at = wire.cstring(body, 1 if kind in "DC" else 0)
        name = name[:63]
        text = (self._portals if kind == "E" or body[:1] == b"P" else self._statements).get(name, "")
        if kind == "P":
            text = self._statements[name] = wire.cstring(body, at)[0].decode("latin-1")
        elif kind == "B":
            text = self._portals[name] = self._statements.get(wire.cstring(body, at)[0][:63], "")
        elif kind == "E":
            self.heard.append(text)
        if (scripted := self._scripted(kind, text)) is not None:
            if scripted == COPY_IN:
                self._copies = "E"
            return scripted
        answers = {"P": wire.PARSE_COMPLETE, "B": wire.BIND_COMPLETE, "C": wire.CLOSE_COMPLETE, "D": wire.NO_DATA}
        return _tag(text) if kind == "E" else answers[kind]

    def _copy(self, kind: str, body: bytes) -> bytes:
        if kind not in "cf" or not self._copies:
            return b""
        by, self._copies = self._copies, ""
        failure = wire.error("57014", f"COPY from stdin failed: {body[:-1].decode()}")
        said = wire.command_complete("COPY 1") if kind == "c" else failure
        self._skips = kind == "f" and by == "E"
        self.status = "E" if kind == "f" else self.status
        return said + (self._ready() if by == "Q" else b"")


def _tag(text: str) -> bytes:
    return wire.command_complete(text.split(maxsplit=1)[0].upper()) if text.split() else b""


class Outside:
    """What the core is given to move its bytes with.

    Args:
        random: Where keys come from.

    Attributes:
        cancelled: The clients whose statements the server was asked to cancel.
        direct: The sessions of clients' own that are open.
        refusal: Why none can be had; empty if it can.
        kept: What such a session answers when it is asked what its client has left there.
        stores: Makes the stores for the data of COPY; None for such as are in memory.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.cancelled: list[Client] = []
        self.direct: dict[int, DirectSession] = {}
        self.refusal = ""
        self.kept: list[str] = []
        self.stores: Callable[[], Store] | None = None

    def open_direct(self, client: Client) -> DirectSession:
        """Open a session, to which nobody answers by itself."""
        if self.refusal:
            raise Unavailable(self.refusal)
        self.direct[client.number] = DirectSession(client, REPORTED, Catalog().may_write)
        return self.direct[client.number]

    def ask_direct(self, client: Client, sql: str) -> list[str]:
        """Return what the session keeps."""
        return self.kept

    def close_direct(self, client: Client) -> None:
        """Close it."""
        self.direct.pop(client.number, None)

    def cancel(self, client: Client) -> None:
        """Take note of the wish."""
        self.cancelled.append(client)

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return self._random.randbytes(length)

    def new_store(self) -> Store:
        """Return a place for the data of a COPY, in which there is room while nothing else is said."""
        return self.stores() if self.stores is not None else Memory()


class Table:
    """A core, its clients and the server.

    Args:
        server: Who plays it.
        random: Where keys come from.
    """

    def __init__(self, server: Server, random: Random | None = None) -> None:
        self.outside = Outside(random or Random(1))
        self.core = Core(Identity("u", "pw", "d"), self.outside, dict(REPORTED))
        self._server = server

    def join(self, **parameters: str) -> Client:
        """Connect a client and log it in."""
        client = self.core.connected()
        startup = wire.startup({"user": "u", "database": "d", **parameters})
        self.feed(client, startup + PASSWORD)
        return client

    def feed(self, client: Client, data: bytes) -> None:
        """Have the core take bytes of a client, and do what is to be done."""
        if client.stage is not Stage.ENDED:
            self.core.received(client, data)
        self.settle()

    def settle(self) -> None:
        """Let core and server talk until neither has anything to say."""
        self.core.run()
        while self.core.backend.out:
            self.hear(self._server.answer(self.sent()))
        assert self.core.backend.is_idle, "the core waits for an answer that will not come"

    def sent(self) -> bytes:
        """Return what the core has to say to the server."""
        data = bytes(self.core.backend.out)
        self.core.backend.out.clear()
        return data

    def hear(self, data: bytes) -> None:
        """Have the core take bytes of the server."""
        self.core.heard(data)
        self.core.run()

    def heard(self, client: Client) -> list[bytes]:
        """Return the messages the client has been sent since the last call.

        Raises:
            AssertionError: They are not whole.
        """
        data = bytes(client.out)
        client.out.clear()
        return [wire.message(kind.encode(), body) for kind, body in messages(data)]

    def told(self, client: Client) -> list[str]:
        """Return the same in readable lines."""
        return [show(message) for message in self.heard(client)]

    def ask(self, job: Job) -> Any:
        """Have the test run ask for *job*, and return what it is answered."""
        answers: list[Any] = []
        self.core.ask(lambda: job, answers.append)
        self.settle()
        return answers[0]

    def talk(self, client: Client, *lines: str) -> list[str]:
        """Have the client send messages, and return what it is told, both as scripts of the corpus write them."""
        self.heard(client)
        steps = (line.partition(" ") for line in lines)
        self.feed(client, b"".join(Step("", kind, rest).data for kind, _, rest in steps))
        return self.told(client)

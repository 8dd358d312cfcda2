"""Records what drivers and programs send, as scripts of the corpus.

``python -m tests.integration.sandbox.record`` lets each of the programs below talk to a sandbox through a relay that
writes down the messages of the client, and rewrites ``corpus/recorded.txt``.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import asyncpg
import psycopg
import psycopg2
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address

from .drivers import Item
from .scripts import EMPTY_NAME, read
from .stage import StagedSandbox, started

RECORDED: Final = Path(__file__).parent / "corpus" / "recorded.txt"

_HEAD: Final = """\
# What drivers and programs send, recorded by ``python -m tests.integration.sandbox.record``: not to be edited.
"""


class Recorder:
    """A relay in front of a server, and what clients have sent through it.

    Args:
        server: Where to pass it on.
    """

    def __init__(self, server: Address) -> None:
        self.lines: list[str] = []
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients = 0
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        """Take no more clients, and wait until those that were there have gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            letter = chr(ord("A") + self._clients)
            self._clients += 1
            thread = threading.Thread(target=self._relay, args=(client, letter))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, letter: str) -> None:
        with client, socket.create_connection((self._server.host, self._server.port)) as server:
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            buffer = bytearray()
            is_started = False
            while data := _received(client):
                server.sendall(data)
                buffer += data
                while (message := _taken(buffer, is_typed=is_started)) is not None:
                    if not is_started and wire.int32(message, 4) >> 16 == 3:
                        is_started = True
                        self._began(letter, message)
                    elif is_started and message[:1] != b"p":
                        self.lines.append(f"{letter}: {line(message)}")
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _began(self, letter: str, packet: bytes) -> None:
        given = wire.startup_parameters(packet)
        more = [f"{name}={value}" for name, value in given.items() if name not in {"user", "database"}]
        if more:
            self.lines.append(f"{letter}: connect " + "\n  ".join(more))


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 16)
    except OSError:
        return b""


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # it may have gone
        while data := _received(source):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _taken(buffer: bytearray, *, is_typed: bool) -> bytes | None:
    """Take the first message out of *buffer*, None while it is not all there."""
    start = 1 if is_typed else 0
    if len(buffer) < start + 4 or len(buffer) < (end := start + wire.int32(buffer, start)):
        return None
    message = bytes(buffer[:end])
    del buffer[:end]
    return message


# Messages as lines ---------------------------------------------------------------------------------------------------


def line(message: bytes) -> str:
    """Return *message* as scripts write it."""
    kind, body = chr(message[0]), message[5:]
    written = _body(kind, body)
    return f"raw {kind} {body.hex()}" if written is None else f"{kind} {written}".rstrip()


def _body(kind: str, body: bytes) -> str | None:
    """Return how scripts write the *body* of a message, None if they cannot."""
    match kind:
        case "Q":
            return _text(body[:-1])
        case "P":
            return _parse(body)
        case "B":
            return _bind(body)
        case "D" | "C":
            return f"{chr(body[0]).lower()} {_name(body[1:-1])}"
        case "E":
            return f"{_name(body[:-5])} {wire.int32(body, len(body) - 4)}"
        case "d":
            return body.decode("latin-1").encode("unicode_escape").decode()
        case "f":
            return body[:-1].decode()
        case _:
            return "" if kind in "SHXc" else None


def _name(name: bytes) -> str:
    return name.decode() or EMPTY_NAME


def _text(text: bytes) -> str:
    return re.sub(r"\s*\n\s*", "\n  ", text.decode().strip())


def _parse(body: bytes) -> str:
    name, at = wire.cstring(body)
    text, at = wire.cstring(body, at)
    oids = [str(wire.int32(body, at + 2 + 4 * index)) for index in range(wire.int16(body, at))]
    return f"{_name(name)}{':' if oids else ''}{','.join(oids)} {_text(text)}"


def _bind(body: bytes) -> str | None:
    portal, at = wire.cstring(body)
    name, at = wire.cstring(body, at)
    formats = wire.int16(body, at)
    values = list(wire.row_values(body[at + 2 + 2 * formats :]))
    is_text = not any(body[at + 2 : at + 2 + 2 * formats]) and body[-2:] == b"\0\0"
    if formats or not is_text or not {None, b"null", b"!b"}.isdisjoint(values):
        return None
    return " ".join([_name(portal), _name(name), *(shlex.quote((value or b"").decode()) for value in values)])


# Programs ------------------------------------------------------------------------------------------------------------


def _asyncpg(url: str) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.executemany("INSERT INTO items (id, name) VALUES ($1, $2)", [(10, "a"), (11, "b")])
            async for _ in connection.cursor("SELECT id FROM items ORDER BY id", prefetch=2):
                pass
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO items (id) VALUES (10)")
        except asyncpg.UniqueViolationError:
            pass
        await connection.copy_records_to_table("parents", records=[(5,), (6,)])
        await connection.reset()
        await connection.close()

    asyncio.run(main())


def _psycopg2(url: str) -> None:
    with closing(psycopg2.connect(url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO items (id, name) VALUES (%s, %s)", (10, "a'b"))
        connection.commit()
        with connection.cursor("named") as cursor:
            cursor.itersize = 2
            cursor.execute("SELECT id FROM items ORDER BY id")
            cursor.fetchall()
        connection.rollback()
        connection.reset()


def _psycopg_3(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO items (id, name) VALUES (%s, %s)", (10, "a"))
        with connection.transaction():
            connection.execute("UPDATE items SET name = 'b' WHERE id = 10")
        with connection.pipeline():
            for number in range(6):
                connection.execute("SELECT %s::int", (number,), prepare=True)


def _orm(session: Session) -> None:
    session.add_all([Item(id=10, name="a"), Item(id=11, name="b")])
    session.flush()
    with session.begin_nested() as savepoint:
        session.add(Item(id=12, name="c"))
        session.flush()
        savepoint.rollback()
    session.commit()
    session.scalars(select(Item).order_by(Item.id)).all()


def _sqlalchemy_psycopg2(url: str) -> None:
    engine: Engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"), pool_pre_ping=True)
    for _ in range(2):
        with Session(engine) as session:
            session.scalars(select(Item).limit(1)).all()
    with Session(engine) as session:
        _orm(session)
    engine.dispose()


def _sqlalchemy_asyncpg(url: str) -> None:
    async def main() -> None:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_pre_ping=True)
        for _ in range(2):
            async with AsyncSession(engine) as session:
                await session.scalars(select(Item).limit(1))
        async with AsyncSession(engine) as session:
            await session.run_sync(_orm)
        await engine.dispose()

    asyncio.run(main())


def _psql(url: str) -> None:
    _program("psql", url, "-X", "-c", "BEGIN; INSERT INTO items (id) VALUES (10)", "-c", "\\d items", "-c", "COMMIT")


def _pg_dump(url: str) -> None:
    _program("pg_dump", "--table=items", "--inserts", url)


def _program(name: str, *arguments: str) -> None:
    from .test_programs import program

    program(name, *arguments)


PROGRAMS: Final[dict[str, Callable[[str], None]]] = {
    "asyncpg": _asyncpg,
    "psycopg2": _psycopg2,
    "psycopg 3": _psycopg_3,
    "SQLAlchemy on psycopg2": _sqlalchemy_psycopg2,
    "SQLAlchemy on asyncpg": _sqlalchemy_asyncpg,
    "psql": _psql,
    "pg_dump": _pg_dump,
}


@contextmanager
def recorder(sandbox: StagedSandbox) -> Iterator[Recorder]:
    """Give a relay in front of *sandbox*."""
    relay = Recorder(sandbox.address)
    try:
        yield relay
    finally:
        relay.close()


def record(sandbox: StagedSandbox, title: str, talk: Callable[[str], None]) -> str:
    """Return what *talk* sends as a script."""
    with recorder(sandbox) as relay:
        talk(sandbox.url.replace(f":{sandbox.address.port}/", f":{relay.port}/"))
    return "\n".join([f"== {title}", *relay.lines]) + "\n"


def main() -> int:
    """Write the file; return an exit code."""
    scripts = []
    with started() as stage:
        for title, talk in PROGRAMS.items():
            with stage.sandbox() as sandbox:
                scripts.append(record(sandbox, f"recorded: {title}", talk))
    text = "\n".join([_HEAD, *scripts])
    RECORDED.write_text(text, encoding="utf-8")
    return 0 if list(read(text)) else 1


if __name__ == "__main__":
    sys.exit(main())

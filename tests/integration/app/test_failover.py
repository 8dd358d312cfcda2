"""Past one machine: a primary and its synchronous standby; the primary is killed, the standby promoted.

The application runs on. No write it acknowledged is lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import psycopg2
import pytest

from .servers import ROOT, START_SECONDS, Workshop, accepts, free_port, postgres_binaries

pytestmark = pytest.mark.needs("initdb")

WRITERS = 4
# So many writes must be acknowledged by each server before the test goes on.
ENOUGH = 40

_SITE = """
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_readonly_session, get_session, get_sync_session

app = FastAPI()
INSERT = text("INSERT INTO note (n) VALUES (:n)")


@app.post("/async/{n}")
async def write_async(n: int, session: Annotated[AsyncSession, Depends(get_session)]) -> None:
    await session.execute(INSERT, {"n": n})


@app.post("/sync/{n}")
def write_sync(n: int) -> None:
    with get_sync_session() as session:
        session.execute(INSERT, {"n": n})


@app.get("/replica")
async def read(session: Annotated[AsyncSession, Depends(get_readonly_session)]) -> dict[str, object]:
    found = await session.execute(text("SELECT pg_is_in_recovery() AS standby, count(*) AS notes FROM note"))
    return dict(found.one()._mapping)
"""


@dataclass(frozen=True, slots=True)
class Member:
    """One of the two servers.

    Args:
        port: Where it listens on 127.0.0.1.
        process: Its first process.
    """

    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, workshop: Workshop, data: Path, *settings: str) -> Self:
        """Start the server whose files are in *data*, and wait until it answers."""
        port = free_port()
        own = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={workshop.directory}")
        arguments = [part for setting in (*own, *settings) for part in ("-c", setting)]
        process = workshop.start(
            [postgres_binaries() / "postgres", "-D", data, *arguments],
            ready=lambda: _answers(port),
            as_server_user=True,
        )
        return cls(port, process)

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Return the rows of *sql*."""
        return _ask(self.port, sql)

    def kill(self) -> None:
        """End it as a power cut would: every process, at once."""
        own = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        self.process.kill()
        for child in map(int, own.split()):
            os.kill(child, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary, and a standby that confirms every commit before the primary does."""

    primary: Member
    standby: Member

    def url(self, role: str) -> str:
        """Return a URL of both servers that leads to the one in *role*."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs={role}"


@pytest.fixture
def pair(workshop: Workshop) -> Pair:
    """Give two PostgreSQL servers with synchronous streaming replication."""
    binaries = postgres_binaries()
    first, second = workshop.directory / "first", workshop.directory / "second"
    workshop.run(binaries / "initdb", "-D", first, "-U", "postgres", "-A", "trust", "--no-sync", as_server_user=True)
    primary = Member.start(workshop, first)
    workshop.run(
        binaries / "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", second,
        "-R", "-X", "stream", "-c", "fast", "--no-sync", as_server_user=True,
    )  # fmt: skip
    standby = Member.start(workshop, second)
    primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.ask("SELECT pg_reload_conf()")
    _until(lambda: primary.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
    primary.ask("CREATE TABLE note (n integer PRIMARY KEY)")
    return Pair(primary, standby)


@pytest.fixture
def site(workshop: Workshop, pair: Pair) -> str:
    """Give the URL of an application that knows both servers, in a process of its own."""
    (workshop.directory / "failover_site.py").write_text(_SITE, encoding="utf-8")
    port = free_port()
    workshop.start(
        [sys.executable, "-m", "uvicorn", "failover_site:app", "--port", str(port), "--log-level", "critical"],
        ready=lambda: accepts(port),
        environment={
            "PYTHONPATH": f"{ROOT}:{workshop.directory}",
            "DATABASE_URL": pair.url("read-write"),
            "DATABASE_REPLICA_URL": pair.url("prefer-standby"),
            "DB_CONNECT_TIMEOUT": "3",
        },
    )
    return f"http://127.0.0.1:{port}"


@dataclass(slots=True)
class Writers:
    """Clients that write one number after the other, and remember the answers.

    Args:
        site: The application's URL.
    """

    site: str
    answers: list[tuple[int, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Write during the block."""
        threads = [threading.Thread(target=self._write, args=(first,)) for first in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def acknowledged(self) -> set[int]:
        """Return the numbers whose write was answered with 200."""
        return {number for number, status in list(self.answers) if status == 200}

    def until_acknowledged(self, count: int) -> None:
        """Wait for *count* further writes to be acknowledged."""
        goal = len(self.acknowledged()) + count
        _until(lambda: len(self.acknowledged()) >= goal)

    def _write(self, number: int) -> None:
        # A connection for each request: uvicorn closes one after an unhandled error, and does not say so beforehand.
        once = {"Connection": "close"}
        with httpx.Client(base_url=self.site, timeout=START_SECONDS, headers=once) as http:
            while not self._over.is_set():
                kind = "sync" if number % 2 else "async"
                self.answers.append((number, http.post(f"/{kind}/{number}").status_code))
                number += WRITERS


def test_failover(pair: Pair, site: str) -> None:
    """When the primary dies requests fail with a status, then succeed on the new one; nothing acknowledged is lost."""
    writers = Writers(site)
    with writers.at_work():
        writers.until_acknowledged(ENOUGH)
        before = httpx.get(f"{site}/replica").json()
        pair.primary.kill()
        pair.standby.ask("SELECT pg_promote()")
        writers.until_acknowledged(ENOUGH)
    after = httpx.get(f"{site}/replica").json()

    stored = {number for (number,) in pair.standby.ask("SELECT n FROM note")}
    acknowledged = writers.acknowledged()
    assert acknowledged <= stored
    assert {number % 2 for number in sorted(acknowledged)[-ENOUGH:]} == {0, 1}
    # A client that was told of an error may have been stored, at most: the answer to its COMMIT was lost.
    assert {status for _, status in writers.answers} <= {200, 500}
    assert before["standby"] is True
    assert after == {"standby": False, "notes": len(stored)}


def _ask(port: int, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=5)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _answers(port: int) -> bool:
    try:
        _ask(port, "SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)

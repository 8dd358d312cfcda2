"""Requests that go wrong in every way there is: real HTTP, real faults, on a database where each session is its own.

A row is there exactly when its client was told so, and whatever happened, every connection is back in its pool.
"""

# ruff: noqa: B008, FAST002 - the documented form of a dependency
from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Annotated, cast
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import QueuePool
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from app.db import (
    async_engine,
    get_async_session,
    get_session,
    get_streaming_session,
    get_sync_session,
    is_retryable,
    sqlstate,
)

from .models import MyModel

pytestmark = [
    pytest.mark.chatdify_db(isolation="database"),
    pytest.mark.usefixtures("tables", "faults_at_commit", "no_connection_in_use"),
]

DbSession = Annotated[AsyncSession, Depends(get_session)]
Serve = Callable[..., str]

# How many requests the test with random faults makes; `tox -e endurance` makes ten thousand.
REQUESTS = int(os.environ.get("APP_TEST_REQUESTS", "300"))
AT_ONCE = 25
SEED = 20240611

# What the server does at COMMIT with a row of this name: after every statement of the transaction has succeeded.
_FAULTS_AT_COMMIT = """
CREATE FUNCTION fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name LIKE 'lost%' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    ELSIF NEW.name LIKE 'serialization%' THEN
        RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fail_at_commit AFTER INSERT ON my_table
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail_at_commit();
"""


@pytest.fixture
def faults_at_commit(tables: None) -> None:
    """Make the commit of some rows fail."""
    with get_sync_session() as session:
        session.execute(text(_FAULTS_AT_COMMIT))


@pytest.fixture
def app() -> FastAPI:
    """Give an application that answers conflicts as applications do."""
    app = FastAPI()

    @app.exception_handler(DBAPIError)
    async def database_error(request: Request, error: DBAPIError) -> JSONResponse:
        return JSONResponse({"sqlstate": sqlstate(error)}, 503 if is_retryable(error) else 409)

    return app


def names() -> set[str]:
    """Return the stored names, as another session sees them."""
    with get_sync_session() as session:
        return set(session.scalars(select(MyModel.name)))


# One fault at a time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "status"), [("lost", 503), ("serialization", 503)])
def test_a_commit_that_fails(app: FastAPI, serve: Serve, fault: str, status: int) -> None:
    """A connection lost at COMMIT, or a serialization failure there, is an error status; the next request works."""

    @app.post("/{name}")
    async def endpoint(name: str, session: DbSession) -> str:
        session.add(MyModel(name))
        return "stored"

    with httpx.Client(base_url=serve(app), timeout=20) as http:
        assert http.post(f"/{fault}").status_code == status
        assert http.post("/kept").status_code == 200

    assert names() == {"kept"}


def test_a_real_serialization_conflict(app: FastAPI, serve: Serve) -> None:
    """Of two transactions that read what the other writes, one is answered with 200 and one with 503."""
    both_have_read = asyncio.Barrier(2)

    @app.post("/{name}")
    async def endpoint(name: str, session: DbSession) -> None:
        _ = await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        await session.execute(select(MyModel))
        await both_have_read.wait()
        session.add(MyModel(name))

    async def main() -> list[int]:
        async with httpx.AsyncClient(base_url=serve(app), timeout=20) as http:
            answers = await asyncio.gather(http.post("/one"), http.post("/two"))
        return [answer.status_code for answer in answers]

    codes = asyncio.run(main())

    assert sorted(codes) == [200, 503]
    assert names() == {name for name, code in zip(("one", "two"), codes, strict=True) if code == 200}


def test_a_background_task_runs_after_a_commit_alone(app: FastAPI, serve: Serve) -> None:
    """A background task sees what its request stored, in a session of its own; after a failed commit there is none."""

    async def note(name: str) -> None:
        async with get_async_session() as session:
            assert await session.scalar(select(MyModel.id).where(MyModel.name == name))
            session.add(MyModel(f"after {name}"))

    @app.post("/{name}")
    async def endpoint(name: str, session: DbSession, background: BackgroundTasks) -> None:
        session.add(MyModel(name))
        background.add_task(note, name)

    with httpx.Client(base_url=serve(app), timeout=20) as http:
        assert http.post("/kept").status_code == 200
        assert http.post("/lost").status_code == 503

    assert names() == {"kept", "after kept"}


def test_server_sent_events(app: FastAPI, serve: Serve) -> None:
    """A stream of events on ``get_streaming_session`` stores what it commits, event by event, and nothing else."""

    @app.get("/")
    async def events(session: AsyncSession = Depends(get_streaming_session)) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            for number in range(3):
                async with session.begin():
                    session.add(MyModel(f"event {number}"))
                yield f"data: {number}\n\n"
            session.add(MyModel("never committed"))
            await session.flush()
            raise ZeroDivisionError

        return StreamingResponse(stream(), media_type="text/event-stream")

    with httpx.Client(base_url=serve(app), timeout=20) as http, http.stream("GET", "/") as answer:
        lines: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError):
            lines.extend(line for line in answer.iter_lines() if line)

    assert names() == {"event 0", "event 1", "event 2"}


def test_the_client_of_a_stream_goes_away(app: FastAPI, serve: Serve, no_connection_in_use: None) -> None:
    """A stream whose client has gone is stopped, what it had not committed is undone, its connection comes back."""
    stopped = asyncio.Event()

    @app.get("/")
    async def endless(session: AsyncSession = Depends(get_streaming_session)) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            try:
                session.add(MyModel("lost"))
                await session.flush()
                while True:
                    yield "data: still here\n\n"
                    await session.execute(text("SELECT pg_sleep(0.01)"))
            finally:
                stopped.set()

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/stopped")
    async def wait() -> int:
        await asyncio.wait_for(stopped.wait(), 20)
        return await _until_idle()

    with httpx.Client(base_url=serve(app), timeout=30) as http:
        with http.stream("GET", "/") as answer:
            assert next(answer.iter_lines()) == "data: still here"
        assert http.get("/stopped").json() == 0

    assert names() == set()


def test_the_client_of_a_request_goes_away(app: FastAPI, serve: Serve) -> None:
    """A request whose client has gone is finished and committed all the same, and its connection comes back."""
    begun, gone = asyncio.Event(), asyncio.Event()

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(MyModel("kept"))
        await session.flush()
        begun.set()
        await asyncio.wait_for(gone.wait(), 20)

    @app.get("/begun")
    async def wait_for_it() -> None:
        await asyncio.wait_for(begun.wait(), 20)

    @app.get("/gone")
    async def let_it_go_on() -> int:
        gone.set()
        return await _until_idle()

    async def main() -> int:
        url = serve(app)
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            close = await _post(url, "/")
            await http.get("/begun")
            await close()
            return int((await http.get("/gone")).json())

    assert asyncio.run(main()) == 0
    assert names() == {"kept"}


def test_websockets(app: FastAPI, serve: Serve) -> None:
    """What a WebSocket was told is stored is stored; the rest of a conversation is when the endpoint ends well."""

    @app.websocket("/{name}")
    async def endpoint(socket: WebSocket, name: str, session: DbSession) -> None:
        await socket.accept()
        session.add(MyModel(name))
        await session.flush()
        if await socket.receive_text() == "store":
            await session.commit()
            await socket.send_text("stored")
        await socket.receive_text()

    async def talk(url: str, name: str, *words: str) -> list[str]:
        heard: list[str] = []
        async with connect(f"{url}/{name}") as socket:
            for word in words:
                await socket.send(word)
            with suppress(ConnectionClosed):
                while True:
                    heard.append(str(await socket.recv()))
        return heard

    async def main() -> dict[str, list[str]]:
        url = serve(app, ws="websockets-sansio").replace("http", "ws")
        return {
            "kept": await talk(url, "kept", "later", "bye"),
            "kept-at-once": await talk(url, "kept-at-once", "store", "bye"),
            "lost": await talk(url, "lost", "later", "bye"),
            "lost-at-once": await talk(url, "lost-at-once", "store", "bye"),
            "broken-off": await broken_off(url),
        }

    async def broken_off(url: str) -> list[str]:
        async with connect(f"{url}/broken-off") as socket:
            await socket.send("later")
        return []

    heard = asyncio.run(main())

    assert heard == {"kept": [], "kept-at-once": ["stored"], "lost": [], "lost-at-once": [], "broken-off": []}
    assert names() == {"kept", "kept-at-once"}


# Many at random ------------------------------------------------------------------------------------------------------

_STATUS = {
    "fine": 200,
    "fine-in-two-steps": 200,
    "rolled-back-by-hand": 200,
    "raised": 500,
    "refused": 422,
    "not-null": 409,
    "caught-in-savepoint": 200,
    "swallowed": 500,
    "orphan": 409,
    "serialization": 503,
    "lost": 503,
    "lost-before": 503,
    "cancelled-by-server": 409,
}
_STORED = {"fine", "fine-in-two-steps", "caught-in-savepoint"}


def test_random_faults(app: FastAPI, serve: Serve) -> None:
    """Hundreds of requests, many at once and most with a fault: each answer is the right one, and so is each row."""
    app.post("/{fault}/{name}")(_faulty)
    app.get("/idle")(_until_idle)
    plan = random.Random(SEED).choices([*_STATUS, "client-gone"], k=REQUESTS)

    async def main() -> list[int]:
        url = serve(app, timeout_graceful_shutdown=20)
        limit = asyncio.Semaphore(AT_ONCE)
        # A connection for each request: uvicorn closes one after an unhandled error, and does not say so beforehand.
        async with httpx.AsyncClient(base_url=url, timeout=60, headers={"Connection": "close"}) as http:

            async def one(number: int, fault: str) -> int:
                name = f"{fault} {number}"
                async with limit:
                    if fault == "client-gone":
                        await (await _post(url, f"/fine/{name}".replace(" ", "%20")))()
                        return 0
                    return (await http.post(f"/{fault}/{name}")).status_code

            codes = await asyncio.gather(*(one(number, fault) for number, fault in enumerate(plan)))
            assert (await http.get("/idle")).json() == 0
            return codes

    begun = time.perf_counter()
    codes = asyncio.run(main())
    seconds = time.perf_counter() - begun

    wrong = [(fault, code) for fault, code in zip(plan, codes, strict=True) if code != _STATUS.get(fault, 0)]
    told = {f"{fault} {number}" for number, fault in enumerate(plan) if fault in _STORED}
    # Whoever went away before the answer was told nothing: either is right.
    assert wrong == []
    assert {name for name in names() if not name.startswith("client-gone")} == told
    assert _open_transactions() == 0
    answers = ", ".join(f"{count} x {code or 'client gone'}" for code, count in sorted(Counter(codes).items()))
    print(f"{REQUESTS} requests, {AT_ONCE} at a time, in {seconds:.0f} s: {answers}; each with the right rows")  # noqa: T201 - the figures of a long run


# Faults that are statements, one after the other.
_STATEMENTS = {
    "not-null": ["INSERT INTO my_table (name) VALUES (NULL)"],
    "orphan": [f"INSERT INTO my_line (owner_id) VALUES ({2**31 - 1})"],
    "lost-before": ["SELECT pg_terminate_backend(pg_backend_pid())"],
    "cancelled-by-server": ["SET LOCAL statement_timeout = 5", "SELECT pg_sleep(20)"],
}


async def _faulty(fault: str, name: str, session: DbSession) -> None:
    """Store a row, with a fault."""
    session.add(MyModel(name))
    if fault not in {"serialization", "lost"}:
        await session.flush()
    for statement in _STATEMENTS.get(fault, ()):
        await session.execute(text(statement))
    match fault:
        case "fine-in-two-steps":
            await session.commit()
            await session.execute(select(MyModel))
        case "rolled-back-by-hand":
            await session.rollback()
        case "raised":
            raise ZeroDivisionError
        case "refused":
            raise HTTPException(422)
        case "caught-in-savepoint":
            with suppress(DBAPIError):
                async with session.begin_nested():
                    await session.execute(text("SELECT 1 / 0"))
        case "swallowed":
            with suppress(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))


async def _post(url: str, path: str) -> Callable[[], Awaitable[None]]:
    """Send a request without waiting for the answer; return what closes its connection."""
    place = urlsplit(url)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()

    async def close() -> None:
        writer.close()
        await writer.wait_closed()

    return close


async def _until_idle() -> int:
    """Return the number of connections in use, once it is 0 or ten seconds have passed."""
    pool = cast("QueuePool", async_engine.pool)
    try:
        async with asyncio.timeout(10):
            while pool.checkedout():  # noqa: ASYNC110 - a pool tells nobody when a connection comes back
                await asyncio.sleep(0.01)
    except TimeoutError:
        pass
    return pool.checkedout()


def _open_transactions() -> int:
    with get_sync_session() as session:
        return int(
            session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND application_name = 'chatdify' AND xact_start IS NOT NULL"
                )
            )
            or 0
        )

"""get_session behind a real HTTP server: the answer is sent when the transaction is over, whatever its outcome."""

# ruff: noqa: B008, FAST002 - the documented form of a dependency
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Event
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import (
    TransactionAborted,
    dispose_engines,
    get_readonly_session,
    get_session,
    get_streaming_session,
    get_sync_session,
    on_commit,
    sqlstate,
)
from app.db.legacy import SessionLocal

from .models import Line, MyModel

pytestmark = pytest.mark.usefixtures("tables", "no_connection_in_use")

DbSession = Annotated[AsyncSession, Depends(get_session)]


@pytest.fixture
def app() -> FastAPI:
    """Give an application without routes."""
    return FastAPI()


@pytest.fixture
def client(app: FastAPI, serve: Callable[..., str]) -> Callable[[], httpx.Client]:
    """Give a function that serves the application and returns a client for it."""
    return lambda: httpx.Client(base_url=serve(app), timeout=20)


def names() -> list[str]:
    """Return the stored names, as another session sees them."""
    with get_sync_session() as session:
        return list(session.scalars(select(MyModel.name).order_by(MyModel.id)))


def test_a_failed_commit_is_never_answered_with_200(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """A constraint that is checked at COMMIT fails the request, not the log alone."""

    @app.post("/")
    async def endpoint(session: DbSession) -> str:
        session.add(Line(owner_id=4711))
        return "stored"

    with client() as http:
        assert http.post("/").status_code == 500


def test_a_failed_commit_reaches_exception_handlers(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """The application may answer a commit that failed as it likes."""

    @app.exception_handler(IntegrityError)
    async def conflict(request: Request, error: IntegrityError) -> JSONResponse:
        return JSONResponse({"sqlstate": sqlstate(error)}, 409)

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(Line(owner_id=4711))

    with client() as http:
        answer = http.post("/")

    assert (answer.status_code, answer.json()) == (409, {"sqlstate": "23503"})


def test_order(app: FastAPI) -> None:
    """Commit comes first, then the calls that waited for it, then the response, then background tasks."""
    seen: list[str] = []

    @app.post("/")
    async def endpoint(session: DbSession, request: Request) -> JSONResponse:
        from starlette.background import BackgroundTask

        session.add(MyModel("x"))
        on_commit(session, lambda: seen.append(f"committed {names()}"))
        return JSONResponse(None, background=BackgroundTask(seen.append, "background"))

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            seen.append(message["type"])
            await send(message)

        await app(scope, receive, note if scope["type"] == "http" else send)

    with TestClient(recording) as http:
        http.post("/")

    assert seen == ["committed ['x']", "http.response.start", "http.response.body", "background"]


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError(), 500), (HTTPException(400), 400)])
def test_an_error_rolls_back(app: FastAPI, client: Callable[[], httpx.Client], error: Exception, status: int) -> None:
    """Nothing of a request that raises is stored, an HTTPException included."""

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(MyModel("lost"))
        await session.flush()
        raise error

    with client() as http:
        assert http.post("/").status_code == status

    assert names() == []


def test_a_request_has_one_session(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """Endpoint, sub-dependencies, routers and other spellings of the dependency share one session."""

    async def user(session: DbSession) -> AsyncSession:
        return session

    router = APIRouter(dependencies=[Depends(get_session)])

    @router.get("/")
    async def endpoint(
        session: DbSession,
        of_user: AsyncSession = Depends(user),
        function: AsyncSession = Depends(get_session, scope="function"),
        uncached: AsyncSession = Depends(get_session, use_cache=False),
    ) -> list[bool]:
        return [session is other for other in (of_user, function, uncached)]

    app.include_router(router)
    with client() as http:
        assert http.get("/").json() == [True, True, True]


def test_work_after_a_commit_in_the_middle(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """An endpoint may commit, go on, and roll back a part by hand: the rest is committed at its end."""

    @app.post("/")
    async def endpoint(session: DbSession) -> int:
        session.add(first := MyModel("first"))
        await session.commit()
        await session.refresh(first)
        session.add(MyModel("undone"))
        await session.flush()
        await session.rollback()
        session.add(MyModel("last"))
        return await session.scalar(select(func.count()).select_from(MyModel)) or 0

    with client() as http:
        assert http.post("/").json() == 2

    assert names() == ["first", "last"]


def test_an_endpoints_own_begin(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """``async with session.begin()`` in an endpoint works, since nothing has begun before."""

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        async with session.begin():
            session.add(MyModel("x"))

    with client() as http:
        assert http.post("/").status_code == 200

    assert names() == ["x"]


def test_a_swallowed_error_is_no_silent_loss(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """An endpoint that catches a database error and goes on gets an error, not a 200 with its rows lost."""
    caught: list[Exception] = []

    @app.exception_handler(TransactionAborted)
    async def note(request: Request, error: TransactionAborted) -> JSONResponse:
        caught.append(error)
        return JSONResponse(None, 503)

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(MyModel("lost"))
        await session.flush()
        try:
            await session.execute(text("SELECT 1 / 0"))
        except Exception:  # noqa: BLE001 - what careless code does
            return

    with client() as http:
        assert http.post("/").status_code == 503

    assert "division by zero (SQLSTATE 22012)" in str(caught[0])
    assert names() == []


def test_overrides(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """``app.dependency_overrides[get_session]`` replaces it, with any kind of function."""
    app.dependency_overrides[get_session] = lambda: "mine"

    @app.get("/")
    async def endpoint(session: DbSession) -> str:
        return f"{session}"

    with client() as http:
        assert http.get("/").json() == "mine"


def test_a_generator_around_it(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """A user's own generator dependency may build on it, and its exit code runs after the commit."""

    async def repository(session: DbSession) -> AsyncIterator[AsyncSession]:
        yield session

    @app.post("/")
    async def endpoint(session: AsyncSession = Depends(repository)) -> None:
        session.add(MyModel("x"))

    with client() as http:
        assert http.post("/").status_code == 200

    assert names() == ["x"]


def test_synchronous_endpoint(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """``Depends(SessionLocal)`` gives older synchronous endpoints a session that is committed before the response."""

    @app.post("/{name}")
    def endpoint(name: str, session: Session = Depends(SessionLocal)) -> None:
        session.add(MyModel(name))
        if name == "orphan":
            session.add(Line(owner_id=4711))

    with client() as http:
        assert http.post("/x").status_code == 200
        assert http.post("/orphan").status_code == 500

    assert names() == ["x"]


def test_websocket(app: FastAPI) -> None:
    """A WebSocket endpoint has one session for the connection, committed when it ends."""

    @app.websocket("/")
    async def endpoint(socket: WebSocket, session: DbSession) -> None:
        await socket.accept()
        session.add(MyModel(await socket.receive_text()))
        await session.flush()
        await socket.send_json(await session.scalar(select(func.count()).select_from(MyModel)))
        await socket.close()

    with TestClient(app) as http, http.websocket_connect("/") as socket:
        socket.send_text("x")
        assert socket.receive_json() == 1

    assert names() == ["x"]


def test_a_session_that_outlives_its_request(app: FastAPI) -> None:
    """Using the session in a streamed response is a clear error, and leaks no connection."""

    @app.get("/")
    async def endpoint(session: DbSession) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            yield str(await session.scalar(select(1)))

        return StreamingResponse(rows())

    with TestClient(app) as http, pytest.raises(InvalidRequestError, match="permanently closed"):
        http.get("/")


def test_streaming_session(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """``get_streaming_session`` lives until the last byte, and stores what was committed explicitly."""
    ended = Event()

    async def note_end() -> AsyncIterator[None]:
        yield
        ended.set()  # dependencies are left last first, and the client may have read all before

    @app.get("/", dependencies=[Depends(note_end)])
    async def endpoint(session: AsyncSession = Depends(get_streaming_session)) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            async with session.begin():
                session.add(MyModel("kept"))
            yield str(await session.scalar(select(func.count()).select_from(MyModel)))
            session.add(MyModel("lost"))
            await session.flush()

        return StreamingResponse(rows())

    with client() as http:
        assert http.get("/").text == "1"

    assert ended.wait(30)
    assert names() == ["kept"]


def test_readonly_session(app: FastAPI, client: Callable[[], httpx.Client]) -> None:
    """``get_readonly_session`` reads, and the server refuses its writes; the next session writes again."""

    @app.get("/")
    async def endpoint(session: AsyncSession = Depends(get_readonly_session)) -> list[str | None]:
        read = str(await session.scalar(select(1)))
        try:
            await session.execute(text("INSERT INTO my_table (name) VALUES ('x')"))
        except Exception as error:  # noqa: BLE001 - its code is the answer
            return [read, sqlstate(error)]
        return [read, None]

    @app.post("/")
    async def write(session: DbSession) -> None:
        session.add(MyModel("x"))

    with client() as http:
        assert http.get("/").json() == ["1", "25006"]
        assert http.post("/").status_code == 200

    assert names() == ["x"]


def test_a_client_with_a_loop_for_each_request(app: FastAPI) -> None:
    """``TestClient(app)`` without ``with`` runs each request in an event loop of its own: all of them work."""

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(MyModel("x"))

    http = TestClient(app)

    assert [http.post("/").status_code for _ in range(3)] == [200, 200, 200]
    assert names() == ["x"] * 3


def test_dispose_engines_at_the_end_of_the_lifespan(serve: Callable[..., str]) -> None:
    """An application that disposes the engines in its lifespan leaves none of its connections behind."""
    from app.db import async_engine

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await dispose_engines()
        idle.append(async_engine.pool.checkedin())  # type: ignore[attr-defined]  # of a QueuePool, which it is

    idle: list[int] = []
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def endpoint(session: DbSession) -> int:
        idle.append(await session.scalar(select(1)) or 0)
        return 1

    with TestClient(app) as http:
        http.get("/")

    assert idle == [1, 0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_many_requests_at_once(app: FastAPI, serve: Callable[..., str], loop: str) -> None:
    """Thirty requests at a time on each event loop implementation are stored, and every connection comes back."""
    from concurrent.futures import ThreadPoolExecutor

    @app.post("/")
    async def endpoint(session: DbSession) -> None:
        session.add(MyModel("x"))

    with httpx.Client(base_url=serve(app, loop=loop), timeout=20) as http, ThreadPoolExecutor(30) as threads:
        codes = list(threads.map(lambda _: http.post("/").status_code, range(60)))

    assert codes == [200] * 60
    assert names() == ["x"] * 60

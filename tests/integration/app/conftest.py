"""Real servers for the tests of the production layer: each is started on loopback, awaited, and stopped by its test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from sqlalchemy.pool import QueuePool

from app.db import create_tables, engines

from .models import Model
from .servers import Postgres, Workshop, accepts, free_port, program

START_SECONDS = 20


class _Server(uvicorn.Server):
    """An uvicorn server that tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def _serving(app: Any, options: dict[str, Any]) -> Iterator[str]:
    server = _Server(uvicorn.Config(app, port=0, **{"log_level": "critical", "ws": "none", **options}))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listening.wait(START_SECONDS), "uvicorn did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session", autouse=True)
def no_loop_beside_the_tests_own() -> None:
    """Say that the main thread has no event loop.

    pytest-asyncio 1.0 asks for one before each async test; Python 3.11 then makes it, and nobody closes it.
    """
    asyncio.set_event_loop(None)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Give ``serve(app, **options) -> base URL``: a real uvicorn for an application, until the end of the test."""
    with ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(_serving(app, options))


@pytest.fixture
def tables() -> None:
    """Create the tables of ``models`` in the test's own transaction or database."""
    create_tables(Model.metadata)


@pytest.fixture
def no_connection_in_use() -> Iterator[None]:
    """Check after the test that every connection is back in its pool."""
    yield
    for name, engine in engines.existing().items():
        pool = cast("QueuePool", engine.pool)
        assert pool.checkedout() == 0, f"{name}: {pool.status()}"


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    """Give a place to start server processes from; they end with the test."""
    with Workshop() as workshop:
        yield workshop


@pytest.fixture
def redis(workshop: Workshop) -> str:
    """Give the URL of a Redis on loopback that keeps nothing on disk."""
    port = free_port()
    workshop.start(
        [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        ready=lambda: accepts(port),
    )
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[Postgres]:
    """Give a PostgreSQL of these tests' own, with TLS, password log-in and clients' certificates."""
    with Workshop() as workshop:
        yield Postgres.start(workshop)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the root of the repository."""
    return Path(__file__).parents[3]

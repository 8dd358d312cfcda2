"""pytest-postgresql: a database for each test, cloned from a template that ``load`` fills once; on the running server.

Engines by its documentation, "Using SQLAlchemy", with this suite's drivers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import pytest_asyncio
from pytest_postgresql import factories
from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from models import Base

SERVER = make_url(os.environ["BENCHMARK_URL"])


def load(host: str, port: int, user: str, dbname: str, password: str, **_options: object) -> None:
    engine = create_engine(URL.create("postgresql+psycopg2", user, password, host, port, dbname), poolclass=NullPool)
    Base.metadata.create_all(engine)


postgresql_server = factories.postgresql_noproc(
    host=SERVER.host, port=SERVER.port, user=SERVER.username, password=SERVER.password, load=[load]
)
postgresql = factories.postgresql("postgresql_server")


@pytest.fixture
def url(postgresql: psycopg.Connection) -> URL:
    return SERVER.set(database=postgresql.info.dbname)


@pytest.fixture
def sync_session(url: URL) -> Iterator[Session]:
    engine = create_engine(url.set(drivername="postgresql+psycopg2"), poolclass=NullPool)
    with Session(engine) as session:
        yield session


@pytest_asyncio.fixture
async def session(url: URL) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session

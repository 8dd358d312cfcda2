"""testcontainers' recipe: a session-scoped ``PostgresContainer``. Isolation is its users' work; here they truncate."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from testcontainers.community.postgres import PostgresContainer

from models import Base


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresContainer]:
    with PostgresContainer(os.environ["BENCHMARK_IMAGE"]) as container:
        yield container


@pytest.fixture(scope="session")
def engine(postgres: PostgresContainer) -> Iterator[Engine]:
    engine = create_engine(postgres.get_connection_url())
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def tables(engine: Engine) -> Iterator[Engine]:
    yield engine
    names = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


@pytest.fixture
def sync_session(tables: Engine) -> Iterator[Session]:
    with Session(tables) as session:
        yield session


@pytest_asyncio.fixture
async def session(tables: Engine) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(tables.url.set(drivername="postgresql+asyncpg"))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    await engine.dispose()

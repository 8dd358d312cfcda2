"""pytest-databases: a container and a database for the run. It leaves isolation to its users; here they truncate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from pytest_databases.docker.postgres import PostgresService
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from models import Base

pytest_plugins = ["pytest_databases.docker.postgres"]


@pytest.fixture(scope="session")
def engine(postgres_service: PostgresService) -> Iterator[Engine]:
    engine = create_engine(
        URL.create(
            "postgresql+psycopg2",
            postgres_service.user,
            postgres_service.password,
            postgres_service.host,
            postgres_service.port,
            postgres_service.database,
        )
    )
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

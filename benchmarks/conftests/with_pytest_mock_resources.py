"""pytest-mock-resources: ``create_postgres_fixture`` clones a database for each test; on the running server.

It looks for a server at the configured address before it starts a container, so it needs no Docker here. Its fixture is
an engine; the async one for the same database is made from its credentials.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from pytest_mock_resources import PostgresConfig, create_postgres_fixture
from sqlalchemy import Engine, NullPool, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from models import Base

SERVER = make_url(os.environ["BENCHMARK_URL"])

pg = create_postgres_fixture(Base)


@pytest.fixture(scope="session")
def pmr_postgres_config() -> PostgresConfig:
    return PostgresConfig(
        host=SERVER.host,
        port=SERVER.port,
        ci_port=SERVER.port,
        username=SERVER.username,
        password=SERVER.password,
        root_database=SERVER.database,
    )


@pytest.fixture
def sync_session(pg: Engine) -> Iterator[Session]:
    with Session(pg) as session:
        yield session


@pytest_asyncio.fixture
async def session(pg: Engine) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(pg.url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session

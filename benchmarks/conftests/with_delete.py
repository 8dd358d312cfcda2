"""DELETE from every table after each test, in one round trip.

Sessions have engines of their own and commit for real; the async engine is made for each test, as its event loop is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from models import Base

URL = os.environ["BENCHMARK_URL"]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = create_engine(URL.replace("postgresql:", "postgresql+psycopg2:"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def tables(engine: Engine) -> Iterator[Engine]:
    yield engine
    statements = "; ".join(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables))
    with engine.begin() as connection:
        connection.execute(text(statements))


@pytest.fixture
def sync_session(tables: Engine) -> Iterator[Session]:
    with Session(tables) as session:
        yield session


@pytest_asyncio.fixture
async def session(tables: Engine) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(URL.replace("postgresql:", "postgresql+asyncpg:"))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    await engine.dispose()

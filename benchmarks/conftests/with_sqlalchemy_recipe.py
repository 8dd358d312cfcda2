"""SQLAlchemy's recipe, "Joining a Session into an External Transaction", and its usual translation to asyncio.

Tables once for the run; a connection with a transaction around each test. An async engine belongs to an event loop, and
pytest-asyncio's default is a loop for each test, so the engine is made in the test's fixture.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import Engine, create_engine
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
def sync_session(engine: Engine) -> Iterator[Session]:
    connection = engine.connect()
    transaction = connection.begin()
    session = Session(bind=connection, join_transaction_mode="create_savepoint")
    yield session
    session.close()
    transaction.rollback()
    connection.close()


@pytest_asyncio.fixture
async def session(engine: Engine) -> AsyncIterator[AsyncSession]:
    async_engine = create_async_engine(URL.replace("postgresql:", "postgresql+asyncpg:"))
    async with async_engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            yield session
        await transaction.rollback()
    await async_engine.dispose()

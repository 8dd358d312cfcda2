"""The limit: BEGIN and ROLLBACK by hand on a connection that stays open, and for asyncio on a loop that does.

Runs with ``asyncio_default_test_loop_scope = session``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from models import Base

URL = os.environ["BENCHMARK_URL"]


@pytest.fixture(scope="session")
def connection() -> Iterator[Connection]:
    engine = create_engine(URL.replace("postgresql:", "postgresql+psycopg2:"))
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def sync_session(connection: Connection) -> Iterator[Session]:
    with connection.begin() as transaction:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        transaction.rollback()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def async_connection(connection: Connection) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(URL.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as opened:
        yield opened
    await engine.dispose()


@pytest_asyncio.fixture(loop_scope="session")
async def session(async_connection: AsyncConnection) -> AsyncIterator[AsyncSession]:
    transaction = await async_connection.begin()
    async with AsyncSession(
        async_connection, join_transaction_mode="create_savepoint", expire_on_commit=False
    ) as session:
        yield session
    await transaction.rollback()

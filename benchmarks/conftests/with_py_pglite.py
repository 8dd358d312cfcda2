"""py-pglite: PostgreSQL as WebAssembly under Node; its own sessions, which truncate every table before a test.

Its drivers are psycopg 3, sync and async. Its async fixtures are plain functions for the run, so the ini file sets
``asyncio_mode = auto`` and one event loop for all.
"""

from __future__ import annotations

import pytest
import pytest_asyncio
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from models import Base


@pytest.fixture(scope="session")
def tables(pglite_engine: Engine) -> None:
    Base.metadata.create_all(pglite_engine)


@pytest.fixture
def sync_session(tables: None, pglite_session: Session) -> Session:
    return pglite_session


@pytest_asyncio.fixture(scope="session")
async def async_tables(pglite_async_engine: AsyncEngine) -> None:
    async with pglite_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@pytest_asyncio.fixture
async def session(async_tables: None, pglite_async_session: AsyncSession) -> AsyncSession:
    pglite_async_session.sync_session.expire_on_commit = False
    return pglite_async_session

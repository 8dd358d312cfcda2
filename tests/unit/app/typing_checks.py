"""Checked by mypy, never run: the documented snippets, and each way to get a session, have the types they should."""

# ruff: noqa: B008 - the documented form of a dependency
from __future__ import annotations

from contextlib import asynccontextmanager
from typing import assert_type

from fastapi import Depends
from sqlalchemy import String, select
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.config import Settings, get_settings
from app.database import SessionLocal, get_db
from app.db import (
    Base,
    SyncSessionLocal,
    async_engine,
    check_database,
    get_async_session,
    get_session,
    get_sync_session,
    is_retryable,
    on_commit,
    sqlstate,
    sync_engine,
)


class MyModel(Base):
    """The documented model."""

    __tablename__ = "typed_table"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))


async def my_endpoint(session: AsyncSession = Depends(get_session)) -> list[MyModel]:
    """Return rows as documented, and wait for a commit with typed arguments."""
    result = await session.execute(select(MyModel))
    on_commit(session, print, "stored")
    return list(result.scalars().all())


async def sessions() -> None:
    """Open a session in each way."""
    async for session in get_session():
        assert_type(session, AsyncSession)
    async for session in get_db():
        assert_type(session, AsyncSession)
    async with asynccontextmanager(get_session)() as session:
        assert_type(session, AsyncSession)
    async with get_async_session() as session:
        assert_type(session, AsyncSession)
    with get_sync_session() as sync_session:
        assert_type(sync_session, Session)
    assert_type(SyncSessionLocal(), Session)
    assert_type(SessionLocal(), Session)


async def other_names() -> None:
    """Use the other public names."""
    assert_type(async_engine, AsyncEngine)
    assert_type(sync_engine, Engine)
    assert_type(get_settings(), Settings)
    assert_type(get_settings().DB_POOL_SIZE, int)
    assert_type(await check_database(), float)
    assert_type(sqlstate(ValueError()), str | None)
    assert_type(is_retryable(ValueError()), bool)
    MyModel("x", 1)  # type: ignore[call-arg]  # wrong on purpose

"""The engines of an application on a sandbox, and what its tests need to ask of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .stage import StagedSandbox


class Base(DeclarativeBase):
    """The models of these tests."""


class Item(Base):
    """A row of the template's first table."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)


class Note(Base):
    """A table that the template does not have, with a key that the server makes."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@contextmanager
def sync_engine(sandbox: StagedSandbox, *, pre_ping: bool = True, size: int = 5) -> Iterator[Engine]:
    """Give a psycopg2 engine."""
    url = sandbox.url.replace("postgresql:", "postgresql+psycopg2:")
    engine = create_engine(url, pool_pre_ping=pre_ping, pool_size=size)
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def async_engine(sandbox: StagedSandbox) -> AsyncIterator[AsyncEngine]:
    """Give an asyncpg engine."""
    engine = create_async_engine(sandbox.url.replace("postgresql:", "postgresql+asyncpg:"), pool_pre_ping=True)
    try:
        yield engine
    finally:
        await engine.dispose()


def count(session: Session) -> int:
    """Return how many items there are: three in the template."""
    return session.scalar(select(func.count()).select_from(Item)) or 0

"""Sessions: one for a request, a task or a block of code, which begins by itself, commits on success, and is closed.

One rule for both kinds: what is left uncommitted when the block ends normally is committed, and an exception rolls it
back. A commit or a rollback in the middle is allowed, and work may go on after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from app.db import engines
from app.db.dependencies import SessionDependency
from app.db.guard import refuse_silent_rollback
from app.db.hooks import drop_calls, has_calls

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    sync_engine: Engine
    async_engine: AsyncEngine
    sync_replica_engine: Engine
    async_replica_engine: AsyncEngine

__all__ = [
    "AsyncSessionLocal",
    "LazySession",
    "SyncSessionLocal",
    "async_engine",
    "async_replica_engine",
    "get_async_session",
    "get_readonly_session",
    "get_session",
    "get_streaming_session",
    "get_sync_readonly_session",
    "get_sync_session",
    "sync_engine",
    "sync_replica_engine",
]

_ENGINES: dict[str, Callable[[], Engine | AsyncEngine]] = {
    "sync_engine": engines.sync_engine,
    "async_engine": engines.async_engine,
    "sync_replica_engine": engines.sync_replica_engine,
    "async_replica_engine": engines.async_replica_engine,
}


class LazySession(Session):
    """A session that asks for its engine at its first statement, so that making one needs no settings.

    A connection that turns out to be lost when it is to be rolled back is no error: the server has rolled it back. The
    error that ended the block is what its caller gets to see.

    Attributes:
        engine_name: The engine it uses when it was given neither ``bind`` nor ``binds``.
    """

    engine_name = "sync_engine"

    def __init__(self, bind: Any = None, *, binds: Any = None, **options: Any) -> None:
        super().__init__(bind, binds=binds, **options)
        self._has_own_bind = bind is not None or bool(binds)

    def get_bind(self, mapper: Any = None, *, bind: Any = None, **options: Any) -> Engine | Connection:
        """Return what the session was bound to, or else its engine."""
        if bind is None and not self._has_own_bind and self.bind is None:
            return _sync_half(_engine(self.engine_name))
        return super().get_bind(mapper, bind=bind, **options)

    def rollback(self) -> None:
        """Roll the transaction back, here or, if the connection is lost, by the server."""
        try:
            super().rollback()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        finally:
            drop_calls(self)

    def close(self) -> None:
        """Close the session, and roll back what is not committed."""
        try:
            super().close()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The first call ended at the lost connection, before the session was closed.
            super().close()
        finally:
            drop_calls(self)


class _AsyncHalf(LazySession):
    engine_name = "async_engine"


class _Replica(LazySession):
    engine_name = "sync_replica_engine"


class _AsyncReplicaHalf(LazySession):
    engine_name = "async_replica_engine"


refuse_silent_rollback(LazySession)

# A closed session stays closed: code that outlives its request gets an error instead of a connection nobody returns.
SyncSessionLocal: sessionmaker[Session] = sessionmaker(
    class_=LazySession, expire_on_commit=False, close_resets_only=False
)
AsyncSessionLocal: async_sessionmaker[AsyncSession] = async_sessionmaker(
    class_=AsyncSession, sync_session_class=_AsyncHalf, expire_on_commit=False, close_resets_only=False
)
_ReplicaSessionLocal: sessionmaker[Session] = sessionmaker(
    class_=_Replica, expire_on_commit=False, close_resets_only=False
)
_AsyncReplicaSessionLocal: async_sessionmaker[AsyncSession] = async_sessionmaker(
    class_=AsyncSession, sync_session_class=_AsyncReplicaHalf, expire_on_commit=False, close_resets_only=False
)


@asynccontextmanager
async def get_async_session() -> AsyncIterator[AsyncSession]:
    """Give an ``AsyncSession`` for a block of code.

    It is used so::

        async with get_async_session() as session:
            session.add(order)

    Committed when the block ends, rolled back when it raises, closed in both cases.

    Yields:
        A session whose objects stay readable after the block.
    """
    async with AsyncSessionLocal() as session:
        yield session
        if session.in_transaction() or has_calls(session.sync_session):
            await session.commit()


@contextmanager
def get_sync_session() -> Iterator[Session]:
    """Give a ``Session`` for a Celery task or any other synchronous block of code.

    It is used so::

        with get_sync_session() as session:
            session.add(order)

    Committed when the block ends, rolled back when it raises, closed in both cases.

    Yields:
        A session whose objects stay readable after the block.
    """
    with SyncSessionLocal() as session:
        try:
            yield session
            if session.in_transaction() or has_calls(session):
                session.commit()
        except BaseException:
            session.rollback()
            raise


@contextmanager
def get_sync_readonly_session() -> Iterator[Session]:
    """Give a ``Session`` that can only read, on the replica if ``DATABASE_REPLICA_URL`` names one.

    The server refuses every write (SQLSTATE 25006), with a replica or without.

    Yields:
        A session that is closed without a commit.
    """
    with _ReplicaSessionLocal() as session:
        yield session


async def _request_session() -> AsyncIterator[AsyncSession]:
    async with get_async_session() as session:
        yield session


async def _readonly_request_session() -> AsyncIterator[AsyncSession]:
    async with _AsyncReplicaSessionLocal() as session:
        yield session


get_session = SessionDependency(
    "get_session",
    __name__,
    _request_session,
    """Give each request an ``AsyncSession``: ``session: AsyncSession = Depends(get_session)``.

    The transaction begins by itself, is committed before the response is sent, and rolled back if the endpoint
    raises: a commit that fails is never answered with 200. All dependencies of a request share one session. Called by
    hand it is an async generator: ``async for session in get_session(): ...``
    """,
)

get_readonly_session = SessionDependency(
    "get_readonly_session",
    __name__,
    _readonly_request_session,
    """Give each request an ``AsyncSession`` that can only read, on the replica if there is one.

    The server refuses every write (SQLSTATE 25006), with a replica or without. Nothing is committed.
    """,
)


async def get_streaming_session() -> AsyncIterator[AsyncSession]:
    """Give an endpoint that streams its response a session that lives until the last byte is sent.

    It never commits by itself, since the response is out before the outcome is known: write with
    ``async with session.begin(): ...``. Use as ``Depends(get_streaming_session)``.

    Yields:
        A session that is rolled back and closed after the response.
    """
    async with AsyncSessionLocal() as session:
        yield session


def _engine(name: str) -> Engine | AsyncEngine:
    # A test may have patched the attribute of this module.
    patched: Engine | AsyncEngine | None = globals().get(name)
    return patched if patched is not None else _ENGINES[name]()


def _sync_half(engine: Engine | AsyncEngine) -> Engine:
    return engine.sync_engine if isinstance(engine, AsyncEngine) else engine


def __getattr__(name: str) -> Any:
    if name in _ENGINES:
        return _ENGINES[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ENGINES})

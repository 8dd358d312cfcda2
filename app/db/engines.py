"""The engines: made when first asked for, never replaced, safe over a fork and in more than one event loop.

Nothing connects and no driver is imported before an engine is used, so the code of a process that needs one driver
runs without the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from app.config import Settings, get_settings
from app.db.errors import DriverMissing

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import Pool

    from app.db.drivers import DriverOptions

__all__ = ["async_engine", "async_replica_engine", "dispose_engines", "existing", "sync_engine", "sync_replica_engine"]

_AnyEngine = TypeVar("_AnyEngine", "Engine", "AsyncEngine")

_engines: dict[str, Engine | AsyncEngine] = {}
_lock = threading.RLock()
# Pools whose sockets belong to the parent process. Held for ever: a connection that is garbage collected in the child
# says goodbye on a socket the parent is still using.
_inherited: Final[list[Pool]] = []


def sync_engine() -> Engine:
    """Return the engine for psycopg2, on the primary.

    Raises:
        app.config.ConfigurationError: The environment names no usable database.
        DriverMissing: psycopg2 is not installed.
    """
    return _once("sync_engine", lambda settings: _new_sync(settings, settings.url))


def async_engine() -> AsyncEngine:
    """Return the engine for asyncpg, on the primary.

    Raises:
        app.config.ConfigurationError: The environment names no usable database.
        DriverMissing: asyncpg is not installed.
    """
    return _once("async_engine", lambda settings: _new_async(settings, settings.url))


def sync_replica_engine() -> Engine:
    """Return the engine for read-only work with psycopg2: the replica if there is one, else the primary's pool."""

    def make(settings: Settings) -> Engine:
        url = settings.replica_url
        engine = sync_engine() if url is None else _new_sync(settings, url)
        return engine.execution_options(postgresql_readonly=True)

    return _once("sync_replica_engine", make)


def async_replica_engine() -> AsyncEngine:
    """Return the engine for read-only work with asyncpg: the replica if there is one, else the primary's pool."""

    def make(settings: Settings) -> AsyncEngine:
        url = settings.replica_url
        engine = async_engine() if url is None else _new_async(settings, url)
        return engine.execution_options(postgresql_readonly=True)

    return _once("async_replica_engine", make)


def existing() -> dict[str, Engine | AsyncEngine]:
    """Return the engines made so far, by name: making none."""
    return dict(_engines)


async def dispose_engines() -> None:
    """Close the idle connections of every engine: for the end of an application's lifespan.

    The engines stay usable, and open new connections if they are used again.
    """
    for engine in existing().values():
        disposed = engine.dispose()
        if disposed is not None:
            await disposed


def _once(name: str, make: Callable[[Settings], _AnyEngine]) -> _AnyEngine:
    engine = _engines.get(name)
    if engine is None:
        with _lock:
            engine = _engines.get(name)
            if engine is None:
                engine = _engines[name] = make(get_settings())
    return cast("_AnyEngine", engine)


def _new_sync(settings: Settings, url: URL) -> Engine:
    from sqlalchemy import create_engine

    from app.db.connecting import mark_failed_connects
    from app.db.drivers import psycopg2_arguments
    from app.db.guard import watch_failures

    arguments = psycopg2_arguments(url, _driver_options(settings))
    with _needs("psycopg2", "psycopg2-binary", engine="sync_engine"):
        engine = create_engine(arguments.url, connect_args=arguments.connect_args, **_engine_options(settings))
    mark_failed_connects(engine)
    watch_failures(engine)
    return engine


def _new_async(settings: Settings, url: URL) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    from app.db.connecting import mark_failed_connects, wrap_failed_connects
    from app.db.drivers import asyncpg_arguments
    from app.db.guard import watch_failures
    from app.db.ping import shorten_ping
    from app.db.pools import LoopLocalQueuePool

    arguments = asyncpg_arguments(url, _driver_options(settings))
    with _needs("asyncpg", "asyncpg", engine="async_engine"):
        engine = create_async_engine(
            arguments.url,
            connect_args=arguments.connect_args,
            poolclass=LoopLocalQueuePool,
            **_engine_options(settings),
        )
    shorten_ping(engine.sync_engine)
    wrap_failed_connects(engine.sync_engine)
    mark_failed_connects(engine.sync_engine)
    watch_failures(engine.sync_engine)
    return engine


@contextmanager
def _needs(driver: str, package: str, *, engine: str) -> Iterator[None]:
    """Say which package to install where *driver* cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != driver:
            raise
        raise DriverMissing.named(engine, driver, package) from error


def _driver_options(settings: Settings) -> DriverOptions:
    from app.db.drivers import DriverOptions

    return DriverOptions(
        connect_timeout=settings.DB_CONNECT_TIMEOUT,
        statement_timeout_ms=settings.DB_STATEMENT_TIMEOUT_MS,
        application_name=settings.DB_APPLICATION_NAME,
        pgbouncer=settings.DB_PGBOUNCER,
    )


def _engine_options(settings: Settings) -> dict[str, Any]:
    return {
        "pool_size": settings.DB_POOL_SIZE,
        "max_overflow": settings.DB_MAX_OVERFLOW,
        "pool_timeout": settings.DB_POOL_TIMEOUT,
        "pool_recycle": settings.DB_POOL_RECYCLE,
        "pool_pre_ping": settings.DB_POOL_PRE_PING,
        "echo": settings.DB_ECHO,
        # An error message goes to logs and trackers; the values in a statement are the users' data.
        "hide_parameters": not settings.DB_ECHO,
    }


def _sync_half(engine: Engine | AsyncEngine) -> Engine:
    return cast("Engine", getattr(engine, "sync_engine", engine))


def _forget_parent() -> None:
    """In a forked child: leave the parent's connections alone and start with empty pools."""
    global _lock  # noqa: PLW0603 - the parent's may be held, by a thread that does not exist here
    _lock = threading.RLock()
    for engine in map(_sync_half, _engines.values()):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)

"""Engines: one of each, made late, configured from the settings, safe for threads and forks."""

from __future__ import annotations

import sys
import threading
from unittest import mock

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

import app.db.session
from app.db import AsyncSessionLocal, DriverMissing, SyncSessionLocal, engines
from app.db.pools import LoopLocalQueuePool

URL = "postgresql://u:s3cr3t-Zq@127.0.0.1:1/db"


@pytest.fixture(autouse=True)
def _url(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", URL)


def test_pool_settings_reach_both_engines(environment: pytest.MonkeyPatch) -> None:
    """Each DB_POOL_* variable is what the pools are made with."""
    for name, value in {
        "DB_POOL_SIZE": "3",
        "DB_MAX_OVERFLOW": "4",
        "DB_POOL_TIMEOUT": "5",
        "DB_POOL_RECYCLE": "6",
        "DB_POOL_PRE_PING": "no",
    }.items():
        environment.setenv(name, value)

    for pool in (engines.sync_engine().pool, engines.async_engine().sync_engine.pool):
        assert isinstance(pool, QueuePool)
        assert (pool.size(), pool._max_overflow, pool.timeout()) == (3, 4, 5.0)
        assert (pool._recycle, pool._pre_ping) == (6, False)
    assert isinstance(engines.async_engine().sync_engine.pool, LoopLocalQueuePool)


def test_no_text_of_an_engine_has_the_password() -> None:
    """Engines, their URLs and their pools print no password, and errors no parameters of statements."""
    for engine in (engines.sync_engine(), engines.async_engine().sync_engine):
        assert "s3cr3t-Zq" not in f"{engine!r} {engine.url} {engine.url!r} {engine.pool!r} {engine.pool.status()}"
        assert engine.hide_parameters


def test_echo_shows_parameters(environment: pytest.MonkeyPatch) -> None:
    """DB_ECHO logs statements with their parameters: it is for development."""
    environment.setenv("DB_ECHO", "1")

    assert engines.sync_engine().echo
    assert not engines.sync_engine().hide_parameters


def test_one_engine_for_many_threads() -> None:
    """Sixteen threads that ask at once get one engine."""
    barrier = threading.Barrier(16)
    found: list[object] = []

    def ask() -> None:
        barrier.wait()
        found.append(engines.sync_engine())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert len(set(map(id, found))) == 1


def test_existing_makes_none() -> None:
    """``existing`` lists what was made, and makes nothing."""
    assert engines.existing() == {}

    engine = engines.sync_engine()

    assert engines.existing() == {"sync_engine": engine}


@pytest.mark.parametrize(
    ("name", "driver", "package"),
    [("sync_engine", "psycopg2", "psycopg2-binary"), ("async_engine", "asyncpg", "asyncpg")],
)
def test_missing_driver(environment: pytest.MonkeyPatch, name: str, driver: str, package: str) -> None:
    """Where a driver is not installed, its engine says which package to install."""
    environment.setitem(sys.modules, driver, None)

    with pytest.raises(DriverMissing, match=f"^{name} cannot be made.(.|\n)*pip install {package}\n"):
        getattr(app.db, name)


@pytest.mark.parametrize("name", ["sync_engine", "async_engine"])
def test_another_missing_module(name: str) -> None:
    """A module that is missing inside a driver is not mistaken for the driver."""
    missing = ModuleNotFoundError("No module named 'inner'", name="inner")
    with (
        mock.patch("sqlalchemy.create_engine", side_effect=missing),
        mock.patch("sqlalchemy.ext.asyncio.create_async_engine", side_effect=missing),
        pytest.raises(ModuleNotFoundError, match="No module named 'inner'"),
    ):
        getattr(app.db, name)


def test_the_replica_shares_the_primarys_pool() -> None:
    """Without a replica, read-only work uses the primary's connections."""
    assert engines.sync_replica_engine().pool is engines.sync_engine().pool
    assert engines.async_replica_engine().pool is engines.async_engine().pool
    assert engines.sync_replica_engine().get_execution_options()["postgresql_readonly"] is True


def test_the_replica_has_its_own_url(environment: pytest.MonkeyPatch) -> None:
    """With DATABASE_REPLICA_URL, read-only work goes there."""
    environment.setenv("DATABASE_REPLICA_URL", "postgresql://r:p@replica:6000/db")

    assert engines.sync_replica_engine().url.host == "replica"
    assert engines.async_replica_engine().url.host == "replica"
    assert engines.sync_engine().url.host == "127.0.0.1"


def test_a_patched_engine_is_used() -> None:
    """Sessions ask for their engine late: a test may replace ``app.db.session.sync_engine``."""
    other = engines.async_engine().sync_engine

    with mock.patch.object(app.db.session, "sync_engine", other):
        assert SyncSessionLocal().get_bind() is other
    assert SyncSessionLocal().get_bind() is engines.sync_engine()


def test_a_sessions_own_bind_wins() -> None:
    """``bind`` and ``binds`` given to a session are used as with any other."""
    own = engines.async_engine().sync_engine
    model = type("Model", (), {})

    assert SyncSessionLocal().get_bind() is engines.sync_engine()
    assert AsyncSessionLocal().get_bind() is engines.async_engine().sync_engine
    assert SyncSessionLocal(bind=own).get_bind() is own
    assert SyncSessionLocal().get_bind(bind=own) is own
    session = SyncSessionLocal()
    session.bind = own
    assert session.get_bind() is own
    assert isinstance(SyncSessionLocal(binds={model: own}), Session)


@pytest.mark.parametrize("name", ["rollback", "close"])
def test_only_a_lost_connection_is_nothing_to_tell(name: str) -> None:
    """A rollback that fails for another reason than a lost connection is an error of the session."""
    lost = DBAPIError(None, None, Exception("lost"), connection_invalidated=True)
    other = DBAPIError(None, None, Exception("other"))

    with mock.patch.object(Session, name, side_effect=[lost, None]):
        getattr(SyncSessionLocal(), name)()
    with mock.patch.object(Session, name, side_effect=other), pytest.raises(DBAPIError, match="other"):
        getattr(SyncSessionLocal(), name)()


def test_a_forked_child_starts_with_empty_pools() -> None:
    """After a fork the engines are the same objects with new pools, and the parent's pools are never collected."""
    engine, other = engines.sync_engine(), engines.async_engine()
    inherited = [engine.pool, other.sync_engine.pool]
    try:
        engines._forget_parent()

        assert engines._inherited[-2:] == inherited
        assert engine.pool is not inherited[0]
        assert other.sync_engine.pool is not inherited[1]
        assert engines.sync_engine() is engine
    finally:
        del engines._inherited[-2:]


def test_a_forked_child_of_one_that_reads_from_its_primary() -> None:
    """The read-only engines go on sharing the primary's pool, which is a new one."""
    pairs: list[tuple[Engine | AsyncEngine, Engine | AsyncEngine]] = [
        (engines.sync_engine(), engines.sync_replica_engine()),
        (engines.async_engine(), engines.async_replica_engine()),
    ]
    before = [primary.pool for primary, _ in pairs]
    count = len(engines._inherited)
    try:
        engines._forget_parent()

        assert {id(pool) for pool in before} <= {id(pool) for pool in engines._inherited[count:]}
        assert all(replica.pool is primary.pool for primary, replica in pairs)
        assert not {id(primary.pool) for primary, _ in pairs} & {id(pool) for pool in before}
    finally:
        del engines._inherited[count:]

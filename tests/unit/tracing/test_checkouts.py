"""Which connections are out of their pools, on pools whose connections reach no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import NullPool, Pool, QueuePool

from pytest_chatdify_db.tracing.callers import Callers
from pytest_chatdify_db.tracing.checkouts import Checkouts


class Driver:
    """A driver's connection."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_backend_pid(self) -> int:
        """Return the number of the connection."""
        return self.number

    def rollback(self) -> None:
        """Have nothing to undo."""

    def close(self) -> None:
        """Be closed."""


class Broken(Driver):
    """A connection that does not know its number."""

    def get_backend_pid(self) -> int:
        """Fail as a closed connection does."""
        raise RuntimeError("closed")


@pytest.fixture
def checkouts() -> Iterator[Checkouts]:
    """Give what listens to every pool of the process."""
    checkouts = Checkouts(Callers(Path(__file__).parent))
    checkouts.install()
    yield checkouts
    checkouts.close()


def pool_of(kind: type[Driver] = Driver, pool: type[Pool] = QueuePool) -> Pool:
    """Return a pool of connections with the numbers 7, 8..."""
    numbers = iter(range(7, 100))
    return pool(lambda: cast("DBAPIConnection", kind(next(numbers))))


def clients(checkouts: Checkouts) -> list[int]:
    """Return the numbers of the connections that are out."""
    return [each.client for each in checkouts.left()]


@pytest.mark.parametrize("kind", [QueuePool, NullPool])
def test_out_and_back(checkouts: Checkouts, kind: type[Pool]) -> None:
    """A connection is out, with the line that took it, until it is given back."""
    pool = pool_of(pool=kind)
    first, second = pool.connect(), pool.connect()

    assert clients(checkouts) == [7, 8]
    assert checkouts.left()[0].actor == "test"
    assert "test_checkouts.py" in str(checkouts.left()[0].line)
    assert "in test_out_and_back" in str(checkouts.left()[0].line)

    first.close()
    assert clients(checkouts) == [8]
    second.close()
    assert clients(checkouts) == []


def test_a_connection_taken_again(checkouts: Checkouts) -> None:
    """What came back from the pool is out once, whoever had it before."""
    pool = pool_of()
    pool.connect().close()
    connection = pool.connect()

    assert clients(checkouts) == [7]
    connection.close()


def test_forgotten(checkouts: Checkouts) -> None:
    """A connection that nobody refers to is given back by its pool."""
    connection: Any = pool_of().connect()
    assert clients(checkouts) == [7]

    del connection

    assert clients(checkouts) == []


@pytest.mark.parametrize("end", ["detach", "invalidate"])
def test_gone_for_good(checkouts: Checkouts, end: str) -> None:
    """A connection that has left its pool for good holds no place in it."""
    connection = pool_of().connect()

    getattr(connection, end)()

    assert clients(checkouts) == []
    connection.close()


def test_a_pool_disposed_of(checkouts: Checkouts) -> None:
    """A connection that outlives its pool is out until it is closed."""
    pool = pool_of()
    idle, connection = pool.connect(), pool.connect()
    idle.close()
    pool.dispose()

    assert clients(checkouts) == [8]
    connection.close()
    assert clients(checkouts) == []


def test_taken_before(checkouts: Checkouts) -> None:
    """What is out when a test begins is not the test's."""
    pool = pool_of()
    earlier = pool.connect()
    checkouts.begin_test()
    later = pool.connect()

    assert clients(checkouts) == [8]
    earlier.close()
    later.close()


def test_disregarded(checkouts: Checkouts) -> None:
    """What a wider fixture takes while it is set up is nobody's; what was out before stays noted."""
    pool = pool_of()
    before = pool.connect()
    with checkouts.disregarded():
        inside = pool.connect()
        pool.connect().close()
    after = pool.connect()

    assert clients(checkouts) == [7, 9]
    for connection in (before, inside, after):
        connection.close()


def test_disregarded_if_the_set_up_fails(checkouts: Checkouts) -> None:
    """A set-up that fails leaves what it took to nobody too."""
    kept = []
    with pytest.raises(ZeroDivisionError), checkouts.disregarded():
        kept.append(pool_of().connect())
        raise ZeroDivisionError

    assert clients(checkouts) == []
    kept.pop().close()


def test_other_databases(checkouts: Checkouts) -> None:
    """A database that knows no process of a server is none of ours."""
    engine = create_engine("sqlite://")
    with engine.connect():
        assert clients(checkouts) == []
    engine.dispose()


def test_a_connection_that_fails(checkouts: Checkouts) -> None:
    """What cannot say its number is handed out all the same."""
    connection = pool_of(Broken).connect()

    assert clients(checkouts) == []
    connection.close()


def test_closed() -> None:
    """After the end nothing is noted."""
    checkouts = Checkouts(Callers(Path(__file__).parent))
    checkouts.install()
    checkouts.close()
    connection = pool_of().connect()

    assert clients(checkouts) == []
    connection.close()

"""The redirected environment."""

from __future__ import annotations

import socket

import pytest

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.redirect import Redirect

_BEFORE = {
    "DATABASE_URL": "postgresql://me:secret@production.example/db",
    "PGHOST": "production.example",
    "PGSERVICE": "",
    "PGSSLMODE": "require",
    "PATH": "/bin",
}


def test_points_to_the_sandbox() -> None:
    """Every variable that names a server names the same place; what libpq would use beside them is gone."""
    environ = dict(_BEFORE)
    redirect = Redirect.begin(user="me@home", environ=environ)

    address = Address.from_url(environ["DATABASE_URL"])

    assert address == redirect.address
    assert (address.host, address.user, address.database) == ("127.0.0.1", "me@home", "chatdify")
    assert environ["POSTGRES_PASSWORD"] == environ["PGPASSWORD"] == address.password
    assert environ["DB_PORT"] == environ["PGPORT"] == str(address.port)
    assert environ["PATH"] == "/bin"
    assert not {"PGSERVICE", "DATABASE_REPLICA_URL"} & environ.keys()
    assert environ["PGSSLMODE"] == "disable"
    redirect.end()


def test_a_replica_too() -> None:
    """A second URL of the application is redirected if there is one."""
    environ = {"DATABASE_REPLICA_URL": "postgresql://replica.example/db"}
    redirect = Redirect.begin(environ=environ)

    assert environ["DATABASE_REPLICA_URL"] == environ["DATABASE_URL"]
    redirect.end()
    assert environ == {"DATABASE_REPLICA_URL": "postgresql://replica.example/db"}


def test_refused_until_somebody_listens() -> None:
    """The port is taken, and a connection to it fails at once instead of hanging."""
    redirect = Redirect.begin(environ={})

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((redirect.address.host, redirect.address.port), timeout=5)
    redirect.end()


def test_put_back() -> None:
    """At the end the environment is exactly what it was, empty values included; a second end changes nothing."""
    environ = dict(_BEFORE)
    redirect = Redirect.begin(environ=environ)

    redirect.end()

    assert environ == _BEFORE
    environ["DATABASE_URL"] = "later"
    redirect.end()
    assert environ["DATABASE_URL"] == "later"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://me:secret@production.example/db", "postgresql://me:***@production.example:5432/db"),
        ("sqlite:///secret.db", "something that is not the URL of a PostgreSQL server"),
        ("", "an empty text"),
        (None, "nothing"),
    ],
)
def test_changed(value: str | None, shown: str) -> None:
    """A variable that somebody else has set is found, and shown without its password."""
    environ: dict[str, str] = {}
    redirect = Redirect.begin(environ=environ)
    assert redirect.changed() is None

    if value is None:
        del environ["DATABASE_URL"]
    else:
        environ["DATABASE_URL"] = value

    assert redirect.changed() == ("DATABASE_URL", shown)
    redirect.end()

"""A server that the user names by its URL: used if it can be, refused with the reason if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_chatdify_db import naming, servers
from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers import Server, external
from pytest_chatdify_db.servers.run import Run
from tests.integration.stand import running_server

PASSWORD = "p@ss:w/rd"


@pytest.fixture(scope="module")
def theirs() -> Iterator[Server]:
    """Return a server that stands for the user's own, with roles of several rights that log in by password."""
    with running_server() as (server, _):
        with connect(server.address) as connection:
            connection.query(
                f"CREATE ROLE creator LOGIN CREATEDB PASSWORD '{PASSWORD}';"
                f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'"
            )
            ((file,),) = connection.query("SHOW hba_file")
            assert file is not None
            connection.query(
                "CREATE TEMP TABLE hba(line text);"
                "INSERT INTO hba VALUES ('local all postgres trust'), ('local all all scram-sha-256');"
                f"COPY hba TO '{file}'; SELECT pg_reload_conf()"
            )
        with connect(server.address) as connection:
            rules = connection.query("SELECT count(*) FROM pg_hba_file_rules")
        assert rules == [("2",)]
        yield server


@pytest.fixture
def run() -> Iterator[Run]:
    """Return a run that is closed after the test."""
    made = Run.create()
    yield made
    made.close()


def start(address: Address, run: Run) -> Server:
    """Use the server at *address*."""
    return servers.start(address.url(), image="", run=run, progress=lambda line: None)


def as_role(theirs: Server, user: str, password: str | None = PASSWORD) -> Address:
    """Return the address of the user's server for a role."""
    return replace(theirs.address, user=user, password=password)


def test_a_role_that_may_create_databases_is_enough(theirs: Server, run: Run) -> None:
    """Templates and clones work without superuser, and what the run made can be dropped by it."""
    server = start(as_role(theirs, "creator"), run)

    def build(address: Address) -> list[str]:
        with connect(address) as connection:
            connection.query("CREATE TABLE t (x int)")
        return []

    template = templates.ensure(server, Recipe("f1", build), run=run, progress=lambda line: None)
    clone = templates.clone(server, template, naming.worker_name(run.id, "main"))
    with connect(clone) as connection:
        assert connection.query("SELECT * FROM t") == []

    assert (server.provider, server.is_managed, server.fsync_off) == ("external", False, True)
    assert (server.version, server.reason) == (theirs.version, "as asked for")
    assert templates.drop_all(server, run) == sorted([template, clone.database])


def test_no_right_to_create_databases(theirs: Server, run: Run) -> None:
    """The statement that gives the right is in the error."""
    with pytest.raises(ServerUnavailable) as caught:
        start(as_role(theirs, "plain"), run)

    assert "the role 'plain' has neither CREATEDB nor SUPERUSER" in str(caught.value)
    assert 'ALTER ROLE "plain" CREATEDB;' in str(caught.value)


@pytest.mark.parametrize(
    ("user", "password", "cause"),
    [
        ("creator", "wr0ng", 'password authentication failed for user "creator"'),
        ("creator", None, "the server asks for a password and the address has none"),
        ("nobody", PASSWORD, 'password authentication failed for user "nobody"'),
    ],
)
def test_a_log_in_that_is_refused(theirs: Server, run: Run, user: str, password: str | None, cause: str) -> None:
    """The server's reason and how to write a password, but never the password."""
    with pytest.raises(ServerUnavailable, match=f"refused the log-in of '{user}'") as caught:
        start(as_role(theirs, user, password), run)

    assert cause in str(caught.value)
    assert "write '@', ':' and '/' in a password as %40, %3A, %2F" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (PASSWORD, "p%40ss", "wr0ng"))


def test_a_database_that_does_not_exist(theirs: Server, run: Run) -> None:
    """The database in the URL has to be there."""
    with pytest.raises(ServerUnavailable, match='database "nothing" does not exist'):
        start(theirs.address.with_database("nothing"), run)


def test_nobody_there(run: Run) -> None:
    """A server that does not answer is named, without its password."""
    with pytest.raises(ServerUnavailable, match="connection refused") as caught:
        start(Address("127.0.0.1", 1, password="s3cret"), run)

    assert "postgresql://postgres:***@127.0.0.1:1/postgres" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_too_old(theirs: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that is needed is in the error."""
    monkeypatch.setattr(external, "MINIMUM_MAJOR", 99)

    with pytest.raises(ServerUnavailable, match=f"it is PostgreSQL {theirs.version}; 99 or newer is needed"):
        start(theirs.address, run)


def test_a_standby(theirs: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that only reads cannot hold test databases."""
    monkeypatch.setattr(external, "_FACTS", external._FACTS.replace("pg_is_in_recovery()", "true"))

    with pytest.raises(ServerUnavailable, match="it is a read-only standby"):
        start(theirs.address, run)

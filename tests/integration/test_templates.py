"""Template databases on a real server: complete or not there, cloned at will, dropped to the last one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_chatdify_db import admin, naming, servers, templates
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, ServerError, connect
from pytest_chatdify_db.run import Run
from pytest_chatdify_db.servers import Server


@pytest.fixture(scope="module")
def module_run() -> Iterator[Run]:
    """Return the run that the server belongs to."""
    run = Run.create()
    yield run
    run.close()


@pytest.fixture(scope="module")
def server(module_run: Run) -> Server:
    """Return a server for all tests here."""
    return servers.start("embedded", image="", run=module_run, progress=lambda line: None)


@pytest.fixture
def run(server: Server) -> Iterator[Run]:
    """Return a run for one test, whose databases are dropped after it."""
    made = Run.create()
    yield made
    templates.drop_all(server, made)
    made.close()


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    """Return a connection to the maintenance database."""
    with connect(server.address) as made:
        yield made


class Build:
    """Fills a database with one table, and counts how often."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.error = error

    def __call__(self, address: Address) -> None:
        """Fill it."""
        self.count += 1
        with connect(address) as connection:
            connection.query("CREATE TABLE t AS SELECT 1 AS x")
        if self.error is not None:
            raise self.error


def ensure(server: Server, run: Run, build: Build, fingerprint: str = "f1") -> str:
    """Ensure a template."""
    return templates.ensure(server, fingerprint, build, run=run, progress=lambda line: None)


def rows(address: Address) -> list[tuple[str | None, ...]]:
    """Return what is in the table."""
    with connect(address) as connection:
        return connection.query("SELECT x FROM t")


def test_a_template_is_built_once(server: Server, run: Run, connection: Connection) -> None:
    """The second call, also of another process of the run, finds it; another fingerprint is another template."""
    build = Build()
    first, second = ensure(server, run, build), ensure(server, Run.attach(run.directory), build)
    other = ensure(server, run, build, "f2")

    assert first == second != other
    assert build.count == 2
    assert admin.is_sealed(connection, first)


def test_nobody_can_connect_to_a_template(server: Server, run: Run) -> None:
    """A session on it would make every clone fail."""
    name = ensure(server, run, Build())

    with pytest.raises(ServerError) as caught:
        connect(server.address.with_database(name))
    assert caught.value.sqlstate == "55000"


@pytest.mark.parametrize("fsync_off", [True, False])
def test_a_clone_is_a_copy(server: Server, run: Run, fsync_off: bool) -> None:
    """It has what the template has, and changes do not go back, by either way of copying."""
    server = replace(server, fsync_off=fsync_off)
    template = ensure(server, run, Build())
    one = templates.clone(server, template, naming.worker_name(run.id, "gw0"))
    with connect(one) as connection:
        connection.query("INSERT INTO t VALUES (2)")
    two = templates.clone(server, template, naming.worker_name(run.id, "gw1"))

    assert rows(one) == [("1",), ("2",)]
    assert rows(two) == [("1",)]


def test_a_clone_replaces_what_a_dead_worker_left(server: Server, run: Run) -> None:
    """A worker that was killed and replaced has the same name again, and its predecessor's sessions do not matter."""
    template = ensure(server, run, Build())
    name = naming.worker_name(run.id, "gw0")
    address = templates.clone(server, template, name)
    with connect(address) as left:
        left.query("INSERT INTO t VALUES (2)")
        templates.clone(server, template, name)

    assert rows(address) == [("1",)]


def test_a_build_that_fails_leaves_nothing(server: Server, run: Run, connection: Connection) -> None:
    """Its error passes, the half-built database is dropped, and the next try succeeds."""
    with pytest.raises(ZeroDivisionError):
        ensure(server, run, Build(ZeroDivisionError()))

    assert admin.databases(connection, naming.run_prefix(run.id)) == []
    assert rows(templates.clone(server, ensure(server, run, Build()), naming.worker_name(run.id, "gw0"))) == [("1",)]


def test_what_a_killed_builder_left_is_built_again(server: Server, run: Run, connection: Connection) -> None:
    """Neither a draft nor a database that was renamed and not yet sealed counts as a template."""
    admin.create_database(connection, naming.draft_name(run.id, "f1"))
    admin.create_database(connection, naming.template_name(run.id, "f1"))
    build = Build()
    name = ensure(server, run, build)

    assert build.count == 1
    assert admin.databases(connection, naming.run_prefix(run.id)) == [name]


def test_a_connection_that_stays_open_is_explained(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that does not close its connections cannot be cloned, and the error says so."""
    monkeypatch.setattr(admin, "await_quiet", lambda *arguments, **options: False)
    left: list[Connection] = []
    with pytest.raises(TemplateFailed, match=r"close every connection that they open \(engine.dispose\(\)\)") as caught:
        templates.ensure(
            server, "f1", lambda address: left.append(connect(address)), run=run, progress=lambda line: None
        )

    assert f"session {left[0].pid} of chatdify-db, idle: " in str(caught.value)
    left[0].close()


def test_a_server_that_is_gone(run: Run) -> None:
    """The error names the database and the server."""
    gone = Server(Address("127.0.0.1", 1, password="s3cret"), "external", "", "18", False, False, 0.0)

    with pytest.raises(TemplateFailed, match="'chatdify_db_x' on postgresql://postgres:") as caught:
        templates.clone(gone, "t", "chatdify_db_x")
    assert "s3cret" not in str(caught.value)
    assert "connection refused" in str(caught.value)


def test_a_template_that_does_not_exist(server: Server, run: Run) -> None:
    """The server's own words are the cause."""
    with pytest.raises(TemplateFailed, match='template database "nothing" does not exist'):
        templates.clone(server, "nothing", naming.worker_name(run.id, "gw0"))


def test_drop_ends_the_sessions_on_it(server: Server, run: Run, connection: Connection) -> None:
    """A connection that leaked does not keep a database; dropping again is fine."""
    address = templates.clone(server, ensure(server, run, Build()), naming.worker_name(run.id, "gw0"))
    with connect(address):
        templates.drop(server, address.database)
    templates.drop(server, address.database)

    assert not admin.exists(connection, address.database)


def test_drop_all_drops_what_the_run_made_and_nothing_else(server: Server, run: Run, connection: Connection) -> None:
    """Templates too; neither the databases of another run nor those of the user."""
    other = Run.create()
    kept = [naming.worker_name(other.id, "gw0"), "chatdify_db", f"x{naming.run_prefix(run.id)}"]
    for name in kept:
        admin.create_database(connection, name)
    template = ensure(server, run, Build())
    clone = templates.clone(server, template, naming.worker_name(run.id, "gw0")).database

    assert templates.drop_all(server, run) == sorted([template, clone])
    assert all(admin.exists(connection, name) for name in kept)
    for name in kept:
        admin.drop_database(connection, name)
    other.close()


# -- The SQL itself


@pytest.mark.parametrize("name", ['quo"te', "apos'trophe", "back\\slash", "spa ce", "ünï", "UPPER", "%s %(x)s", ";--"])
def test_names_are_quoted(connection: Connection, name: str) -> None:
    """Whatever a name holds, it is a name."""
    admin.create_database(connection, name)

    assert admin.exists(connection, name)
    assert admin.databases(connection, name) == [name]
    admin.seal(connection, name)
    assert admin.is_sealed(connection, name)
    admin.drop_database(connection, name)
    assert not admin.exists(connection, name)


def test_an_advisory_lock_excludes(server: Server, connection: Connection) -> None:
    """Another session does not get it before it is free."""
    question = f"SELECT pg_try_advisory_lock({naming.lock_key('name')})"
    with connect(server.address) as other:
        with admin.advisory_lock(connection, "name"):
            assert other.query(question) == [("f",)]
        assert other.query(question) == [("t",)]


def test_major_version(connection: Connection, server: Server) -> None:
    """It is what the server reported at log-in."""
    assert admin.major_version(connection) == int(server.version.split(".")[0])


def test_a_database_that_stays_busy(server: Server, connection: Connection) -> None:
    """Waiting has an end."""
    assert not admin.await_quiet(connection, "postgres", patience=0.01)

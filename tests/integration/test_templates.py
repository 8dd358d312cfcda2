"""Template databases on a real server: complete or not there, cloned at will, dropped to the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_chatdify_db import naming, servers
from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ServerError
from pytest_chatdify_db.servers import Server, Wish, admin, archives
from pytest_chatdify_db.servers.run import Run
from tests.integration.stand import running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server for all tests here, which outlives the run of each."""
    with running_server() as (made, _):
        yield replace(made, is_managed=False)


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
        self.files: list[str] = []

    def __call__(self, address: Address) -> list[str]:
        """Fill it."""
        self.count += 1
        with connect(address) as connection:
            connection.query("CREATE TABLE t AS SELECT 1 AS x")
        if self.error is not None:
            raise self.error
        return self.files


class Leak(Build):
    """Leaves a connection open, in a list."""

    def __init__(self, left: list[Connection]) -> None:
        super().__init__()
        self.left = left

    def __call__(self, address: Address) -> list[str]:
        """Fill it, and stay."""
        self.left.append(connect(address))
        return super().__call__(address)


def ensure(server: Server, run: Run, build: Build, fingerprint: str = "f1") -> str:
    """Ensure a template."""
    return templates.ensure(server, Recipe(fingerprint, build), run=run, progress=lambda line: None)


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


def test_a_template_of_the_run_is_copied_ahead(server: Server, run: Run) -> None:
    """One connection finds and copies it; without it, nothing is made."""
    managed = replace(server, is_managed=True)
    missing = templates.copy_managed(managed, "ahead", naming.worker_name(run.id, "gw0"), run)
    name = ensure(managed, run, Build(), "ahead")
    found = templates.copy_managed(managed, "ahead", naming.worker_name(run.id, "gw0"), run)
    templates.drop(managed, name)

    assert missing is None
    assert found is not None
    assert found[0] == name
    assert rows(found[1]) == [("1",)]


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
    admin.create_database(connection, naming.template_name(run.id, naming.fingerprint([server.version, "f1"])))
    build = Build()
    name = ensure(server, run, build)

    assert build.count == 1
    assert admin.databases(connection, naming.run_prefix(run.id)) == [name]


def test_a_connection_that_stays_open_is_explained(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that does not close its connections cannot be cloned, and the error says so."""
    monkeypatch.setattr(admin, "await_quiet", lambda *arguments, **options: False)
    left: list[Connection] = []
    with pytest.raises(TemplateFailed, match=r"close every connection that they open \(engine.dispose\(\)\)") as caught:
        ensure(server, run, Leak(left))

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


# -- Kept in the user's cache, with the server's data


Started = Callable[..., tuple[Server, Run]]


@pytest.fixture
def started(own_cache: Path) -> Iterator[Started]:
    """Return what starts a server that may bring the template "f1" along, from a cache of the test's own."""
    runs: list[Run] = []

    def start(guess: str = "") -> tuple[Server, Run]:
        runs.append(Run.create())
        wish = Wish(guess, lambda: "f1")
        return servers.start("embedded", image="", run=runs[-1], progress=lambda line: None, template=wish), runs[-1]

    yield start
    for run in runs:
        run.close()


def test_a_template_comes_back_with_the_next_server(started: Started) -> None:
    """The second run builds nothing, and what the first did to its databases is not in it."""
    build = Build()
    server, run = started()
    with connect(templates.clone(server, ensure(server, run, build), "chatdify_db_one")) as connection:
        connection.query("INSERT INTO t VALUES (2)")
    run.close()
    server, run = started()
    template = ensure(server, run, build)

    assert build.count == 1
    assert rows(templates.clone(server, template, "chatdify_db_one")) == [("1",)]
    with connect(server.address) as connection:
        assert admin.databases(connection, "chatdify_db_") == sorted(["chatdify_db_one", template])


@pytest.mark.parametrize("guess", ["f1", "another"])
def test_a_guess_saves_time_and_changes_nothing(started: Started, guess: str) -> None:
    """A server that was started on a guess has the template that is needed, right or wrong as the guess was."""
    build = Build()
    server, run = started()
    template = ensure(server, run, build)
    run.close()
    server, run = started(guess)

    assert ensure(server, run, build) == template
    assert build.count == 1
    assert server.store is not None
    assert server.store.template == "f1"


def test_a_template_is_kept_while_its_run_goes_on(started: Started) -> None:
    """A run that starts during another's tests, or after it was killed, has it already."""
    build = Build()
    for _ in range(2):
        ensure(*started(), build)

    assert build.count == 1


def test_a_file_that_the_seed_read_has_changed(started: Started, tmp_path: Path) -> None:
    """The template that was brought along is dropped, built again, and kept in its place."""
    build = Build()
    build.files = [str(tmp_path / "rows.csv")]
    (tmp_path / "rows.csv").write_text("one")
    counts = []
    for text in ("one", "one", "two", "two"):
        (tmp_path / "rows.csv").write_text(text)
        ensure(*started(), build)
        counts.append(build.count)

    assert counts == [1, 1, 2, 2]


def test_a_template_with_unlogged_tables_is_not_kept(started: Started) -> None:
    """It would come back empty: the server that gets it recovers as after a crash."""

    class Unlogged(Build):
        def __call__(self, address: Address) -> list[str]:
            with connect(address) as connection:
                connection.query("CREATE UNLOGGED TABLE u AS SELECT 1 AS x")
            return super().__call__(address)

    build = Unlogged()
    for _ in range(2):
        ensure(*started(), build)

    assert build.count == 2


def test_data_with_more_than_the_template_is_not_kept(started: Started, own_cache: Path) -> None:
    """Somebody may be writing to the other database while the files are copied."""
    server, run = started()
    ensure(server, run, Build(), "f2")
    ensure(server, run, Build())

    assert not list(own_cache.glob(f"{archives.TEMPLATES}*"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_broken_archive_costs_a_rebuild(started: Started, own_cache: Path, damage: str) -> None:
    """A disk that filled up, or whatever else was done to the file: the run goes on, and the archive is repaired."""
    build = Build()
    ensure(*started(), build)
    (entry,) = own_cache.glob(f"{archives.TEMPLATES}*")
    whole = entry.read_bytes()
    entry.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no archive"}[damage])
    for _ in range(2):
        server, run = started()
        assert rows(templates.clone(server, ensure(server, run, build), "chatdify_db_one")) == [("1",)]

    assert build.count == 2


def test_a_cache_that_cannot_be_written(started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every run builds its own template, and none fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    build = Build()
    for _ in range(2):
        ensure(*started(), build)

    assert build.count == 2


def test_a_full_disk(started: Started, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """What could not be written to its end is not in the cache."""
    server, run = started()
    monkeypatch.setattr(archives, "_tar", lambda *arguments: False)
    ensure(server, run, Build())

    assert {path.name.split("-")[0] for path in own_cache.iterdir()} == {"data", "version"}


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

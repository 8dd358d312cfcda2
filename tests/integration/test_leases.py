"""What stays on a server between runs: found by its inputs, shared by all, dropped when nobody can need it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_chatdify_db import naming
from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.servers import Server, admin, leases
from pytest_chatdify_db.servers.leases import Note
from pytest_chatdify_db.servers.run import Run
from tests.integration.stand import running_server

DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    """Return a server that stands for one that outlives every run."""
    with running_server() as (made, _):
        yield replace(made, is_managed=False)


@pytest.fixture
def server(module_server: Server) -> Iterator[Server]:
    """Return the server, which is empty again after the test."""
    yield module_server
    with connect(module_server.address) as connection:
        for name in admin.databases(connection, naming.PREFIX):
            admin.drop_database(connection, name)


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    """Return a connection to the maintenance database."""
    with connect(server.address) as made:
        yield made


class Process:
    """A process of a run: its lease, and what it does.

    Args:
        server: Where.
        files: What its seed reads.
    """

    def __init__(self, server: Server, *files: Path) -> None:
        self.server = server
        self.run = Run.create()
        self.lease = templates.open_lease(server, self.run)
        self.builds = 0
        self.news: list[str] = []
        self._files = list(map(str, files))

    def template(self, fingerprint: str = "f1") -> str:
        """Return the template."""
        recipe = Recipe(fingerprint, self._build)
        return templates.ensure(self.server, recipe, run=self.run, progress=self.news.append, lease=self.lease)

    def clone(self) -> str:
        """Return the name of a clone."""
        name = naming.worker_name(self.run.id, "main")
        return templates.clone(self.server, self.template(), name).database

    def die(self) -> None:
        """End as by ``kill -9``: nothing is cleaned up but what the kernel and the server do."""
        self.lease.close()
        self.run.close()

    def end(self) -> None:
        """End in order."""
        self.lease.close()
        templates.drop_all(self.server, self.run)
        self.run.close()

    def _build(self, address: Address) -> list[str]:
        self.builds += 1
        with connect(address) as connection:
            connection.query("CREATE TABLE t (x int)")
        return self._files


def test_the_next_run_finds_the_template(server: Server) -> None:
    """It builds nothing, whichever way the first one ended."""
    first = Process(server)
    made = first.template()
    first.end()
    second = Process(server)

    assert second.template() == made
    assert second.builds == 0
    second.end()


def test_databases_of_failed_tests_go_after_a_day(server: Server) -> None:
    """They outlive the run that made them, and the first run that begins more than a day later drops them."""
    first = Process(server)
    young, old = (naming.failed_name(first.run.id, "main", str(number)) for number in (1, 2))
    for name in (young, old):
        templates.clone(server, first.template(), name)
    with connect(server.address) as connection:
        leases.touch(connection, young, {})
        admin.comment(connection, old, leases.Note(admin.clock(connection) - leases.LONGEST_FAILED - 60).to_text())
    first.end()
    second = Process(server)
    with connect(server.address) as connection:
        left = admin.databases(connection, naming.FAILED_PREFIX)
        admin.drop_database(connection, young)

    assert left == [young]
    second.end()


def test_two_runs_at_once_build_one_template(server: Server) -> None:
    """The second waits for the first, says so, and takes what it made."""
    first, second = Process(server), Process(server)
    inside, go_on = threading.Event(), threading.Event()
    build = first._build

    def slow(address: Address) -> list[str]:
        inside.set()
        go_on.wait()
        return build(address)

    first._build = slow  # type: ignore[method-assign]  # a build that the test decides about
    one, two = threading.Thread(target=first.template), threading.Thread(target=second.template)
    one.start()
    inside.wait()
    two.start()
    with connect(server.address) as connection:
        while not connection.query(f"SELECT unnest(pg_blocking_pids({second.lease.pid}))"):
            pass
    go_on.set()
    one.join()
    two.join()

    assert (first.builds, second.builds) == (1, 0)
    assert second.news == ["waiting for another run that builds the template database"]
    assert first.template() == second.template()
    first.end()
    second.end()


def test_two_branches_at_once(server: Server, tmp_path: Path) -> None:
    """Other inputs are another template, and so is another content of a file that the seed reads."""
    rows = tmp_path / "rows.csv"
    rows.write_text("one")
    first = Process(server, rows)
    names = [first.template(), first.template("f2")]
    rows.write_text("two")
    second = Process(server, rows)
    names += [second.template()]

    assert len(set(names)) == 3
    assert (first.builds, second.builds) == (2, 1)
    rows.write_text("one")
    assert second.template() == names[0]
    first.end()
    second.end()


def test_the_next_run_drops_what_a_killed_one_left(server: Server, connection: Connection) -> None:
    """Its databases go; its template stays, for it is complete."""
    killed = Process(server)
    clone, template = killed.clone(), killed.template()
    admin.create_database(connection, naming.draft_name(killed.run.id, "f2"))
    admin.comment(connection, naming.draft_name(killed.run.id, "f2"), Note().to_text())
    killed.die()
    following = Process(server)

    assert admin.databases(connection, naming.PREFIX) == [template]
    assert not admin.exists(connection, clone)
    following.end()


def test_a_run_that_lives_keeps_everything(server: Server, connection: Connection) -> None:
    """While any of its processes is there, neither its databases nor its template is dropped, however old."""
    living = Process(server)
    clone, template = living.clone(), living.template()
    admin.comment(connection, template, Note(used=0).to_text())
    Process(server).end()

    assert admin.exists(connection, clone)
    assert admin.exists(connection, template)
    living.end()


def test_a_lease_on_another_database_counts(server: Server, connection: Connection) -> None:
    """Two users of a server may log in to different databases of it, and PostgreSQL keeps their locks apart."""
    admin.create_database(connection, "maintenance")
    living = Process(replace(server, address=server.address.with_database("maintenance")))
    clone = living.clone()
    Process(server).end()

    assert admin.exists(connection, clone)
    living.end()
    admin.drop_database(connection, "maintenance")


@pytest.mark.parametrize(
    ("age", "stays"), [(0, True), (13 * DAY, True), (15 * DAY, False), (-13 * DAY, True), (-400 * DAY, False)]
)
def test_templates_that_nobody_uses_go(server: Server, connection: Connection, age: float, stays: bool) -> None:
    """By the server's clock; a time that is far in the future was never right."""
    process = Process(server)
    template = process.template()
    process.end()
    admin.comment(connection, template, Note(used=admin.clock(connection) - age).to_text())
    leases.collect(connection)

    assert admin.exists(connection, template) is stays


def test_the_templates_used_last_stay(server: Server, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, those that were used first go."""
    process = Process(server)
    made = [process.template(fingerprint) for fingerprint in ("f1", "f2", "f3")]
    process.end()
    for age, name in enumerate(reversed(made)):
        admin.comment(connection, name, Note(used=admin.clock(connection) - age * 60).to_text())
    monkeypatch.setattr(leases, "MOST", 2)

    assert leases.collect(connection) == [made[0]]


def test_use_is_noted(server: Server, connection: Connection) -> None:
    """A template that is used is not old."""
    process = Process(server)
    template = process.template()
    admin.comment(connection, template, Note(used=1).to_text())
    process.template()
    note = Note.from_text(admin.comments(connection, template)[template])

    assert note is not None
    assert admin.clock(connection) - note.used < DAY
    process.end()


@pytest.mark.parametrize(
    "text", [None, "", "mine", "{}", "[]", '{"made by": "somebody"}', '{"made by": "pytest-chatdify-db"}']
)
def test_a_name_proves_nothing(server: Server, connection: Connection, text: str | None) -> None:
    """A user's database whose name looks like ours is never dropped: only a note of ours makes it ours."""
    names = [naming.worker_name("products", "main"), naming.kept_template_name("0" * 16, "products")]
    for name in names:
        admin.create_database(connection, name)
        if text is not None:
            admin.comment(connection, name, text)

    assert leases.collect(connection) == []


def test_a_database_of_another_role_stays(server: Server, connection: Connection) -> None:
    """Whoever may drop it will."""
    connection.query("CREATE ROLE other LOGIN CREATEDB")
    killed = Process(replace(server, address=replace(server.address, user="other")))
    clone = killed.clone()
    killed.die()
    Process(server).end()

    assert admin.exists(connection, clone)
    admin.drop_database(connection, clone)
    for name in admin.databases(connection, naming.KEPT_PREFIX):
        admin.drop_database(connection, name)
    connection.query("DROP ROLE other")


def test_a_template_that_was_not_finished_is_not_found(server: Server, connection: Connection) -> None:
    """One that was renamed and not sealed before its builder was killed is built again, and collected in time."""
    process = Process(server)
    template = process.template()
    connection.query(f'ALTER DATABASE "{template}" IS_TEMPLATE false ALLOW_CONNECTIONS true')
    process.die()
    following = Process(server)
    made = following.template()

    assert following.builds == 1
    assert made != template
    following.end()


def test_a_build_that_fails_keeps_nobody_waiting(server: Server) -> None:
    """Its error passes, the draft is dropped, and the next process builds."""
    process, following = Process(server), Process(server)

    def fail(address: Address) -> list[str]:
        raise ZeroDivisionError(address.database)

    process._build = fail  # type: ignore[method-assign]  # a build that the test decides about
    with pytest.raises(ZeroDivisionError):
        process.template()
    with closing(following.lease):
        following.template()

    assert following.builds == 1
    process.end()
    following.end()


def test_a_server_that_is_gone() -> None:
    """The error says which, without its password."""
    run = Run.create()
    gone = Server(Address("127.0.0.1", 1, password="s3cret"), "external", "", "18", False, False, 0.0)
    with pytest.raises(TemplateFailed, match="connection refused") as caught:
        templates.open_lease(gone, run)

    assert "s3cret" not in str(caught.value)
    run.close()


def test_a_note_survives_the_way_through_a_comment() -> None:
    """Text and back."""
    note = Note(12.0, {"/a 'b'\\c": "0"})

    assert Note.from_text(note.to_text()) == note

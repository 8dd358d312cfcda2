"""Containers that stay for later runs, for real: one for all that want the same, and none for ever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pytest_chatdify_db import servers
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers import Server, Wish, kept, leases
from pytest_chatdify_db.servers.run import Run
from tests.integration.test_servers_container import IMAGE, docker

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.docker

STAYS = Wish(stays=True)


def names() -> list[str]:
    """Return the names of the containers that stay, those that have ended too."""
    return docker("ps", "--all", "--filter", f"label={kept.LABEL}", "--format", "{{.Names}}").split()


def use(image: str = IMAGE) -> Server:
    """Have a run use the container that stays, and end."""
    run = Run.create()
    try:
        return servers.start("container", image=image, run=run, progress=lambda line: None, template=STAYS)
    finally:
        run.close()


@pytest.fixture(autouse=True)
def removed() -> Iterator[None]:
    """Remove the containers of a test; one that is there before belongs to somebody, and is told."""
    assert names() == []
    yield
    for name in names():
        docker("rm", "--force", "--volumes", name)


@pytest.fixture
def other_image() -> Iterator[str]:
    """Return an image that is another one, and runs like the first."""
    made, image = docker("create", IMAGE), "chatdify-db-test/other:1"
    docker("commit", "--change", "LABEL other=yes", made, image)
    yield image
    docker("rm", "--force", made)
    docker("rmi", "--force", image)


def test_a_later_run_gets_the_same_server() -> None:
    """It is there when the run is over, and on it a run has only what it made itself."""
    first, second = use(), use()

    assert len(names()) == 1
    assert first.address == second.address
    assert not second.is_managed
    assert second.reason.endswith(f"docker rm --force --volumes {names()[0]}")


def test_two_runs_at_once_share_one() -> None:
    """Both start it, the engine lets one, and the other waits until it is ready."""
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(lambda _: use(), range(2))

    assert len(names()) == 1
    assert first.address == second.address


def test_one_that_has_ended_is_replaced() -> None:
    """Its data was in memory; a machine that was restarted has such containers."""
    use()
    docker("kill", *names())

    with connect(use().address) as connection:
        assert connection.query("SELECT 1") == [("1",)]
    assert len(names()) == 1


def test_one_that_cannot_start_is_removed() -> None:
    """An image that is broken leaves nothing behind."""
    made, image = docker("create", IMAGE), "chatdify-db-test/broken:1"
    docker("commit", "--change", 'ENTRYPOINT ["/no/such/program"]', made, image)
    try:
        with pytest.raises(ServerUnavailable, match="container"):
            use(image)
        assert names() == []
    finally:
        docker("rm", "--force", made)
        docker("rmi", "--force", image)


def test_an_old_one_is_removed_by_a_run_with_another(other_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while somebody is connected to it, and not before its time."""
    server = use()
    (old,) = names()
    use(other_image)
    assert old in names()

    monkeypatch.setattr(kept, "LONGEST", 0.0)
    with connect(server.address):
        use(other_image)
        assert old in names()
    use(other_image)

    assert len(names()) == 1
    assert old not in names()


def test_how_long_nobody_has_used_it() -> None:
    """Since its start or since a template was used last; not at all while somebody is connected."""
    server = use()
    with connect(server.address) as connection:
        assert 0 < leases.idle_seconds(connection) < 3600
        with connect(server.address):
            assert leases.idle_seconds(connection) == 0


def test_the_template_is_there_for_the_second_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed is planted once, and each run has its rows; nothing of a run is left but the template."""
    project.write_models()
    project.write(
        "conftest.py",
        """
        import os
        import pytest
        from models import Item

        @pytest.fixture(scope="session")
        def chatdify_db_seed():
            def plant(session):
                with open(os.environ["PLANTED"], "a") as file:
                    file.write("once ")
                session.add(Item("seeded"))
            return plant
        """,
    )
    project.write(
        "test_it.py", "from store import add, names\ndef test_it():\n    add('x')\n    assert len(names()) == 2"
    )
    planted = project.pytester.path / "planted.txt"
    monkeypatch.setenv("PLANTED", str(planted))
    for _ in range(2):
        result = project.run("--chatdify-db-reuse=always", f"--chatdify-db-image={IMAGE}", server="container")
        result.assert_outcomes(passed=1)

    result.stdout.fnmatch_lines(["*it stays until it is removed: docker rm --force --volumes chatdify-db-kept-*"])
    assert planted.read_text() == "once "
    with connect(use().address) as connection:
        found = connection.query("SELECT datname FROM pg_database WHERE datname LIKE 'chatdify_db_%'")
    assert len(found) == 1

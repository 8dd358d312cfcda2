"""Templates that later runs find: nothing is built twice for the same inputs, and nothing stale is ever used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_chatdify_db import naming, servers
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers import admin
from pytest_chatdify_db.servers.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_chatdify_db.servers import Server
    from tests.conftest import Project

_SEED = """
import pytest
from pathlib import Path
from sqlalchemy import text
from models import Item

@pytest.fixture(scope="session")
def chatdify_db_seed():
    def plant(session):
        with Path("built").open("a") as file:
            file.write("x")
        session.add(Item(name=Path("name.txt").read_text()))
    return plant
"""

_TEST = """
from pathlib import Path
import pytest
from store import names

@pytest.mark.parametrize("number", range(2))
def test_it(number): assert names() == [Path("name.txt").read_text()]
"""


@pytest.fixture
def planted(project: Project, own_cache: Path) -> Project:
    """A project of two tests, with a seed that reads a file and counts its calls, and a cache of its own."""
    project.write_models()
    project.write("conftest.py", _SEED)
    project.write("test_it.py", _TEST)
    project.write("name.txt", "one")
    return project


def built(project: Project) -> int:
    """Return how often the template was built."""
    return len((project.pytester.path / "built").read_text())


def test_the_second_run_builds_nothing(planted: Project) -> None:
    """Neither in one process nor with workers; a change of seed, file or models has it built again, once."""
    counts = []
    for workers, change in (
        (2, lambda: None),
        (2, lambda: None),
        (0, lambda: planted.write("test_it.py", _TEST + "# a test is no input")),
        (0, lambda: planted.write("name.txt", "two")),
        (2, lambda: planted.write("conftest.py", _SEED + "# changed")),
        (0, lambda: planted.write("models.py", (planted.pytester.path / "models.py").read_text() + "# changed")),
        (0, lambda: None),
    ):
        change()
        planted.run(f"-n{workers}", plugins="pytest_asyncio.plugin xdist.plugin").assert_outcomes(passed=2)
        counts.append(built(planted))

    assert counts == [1, 1, 1, 2, 3, 4, 4]


def test_without_reuse(planted: Project) -> None:
    """``--chatdify-db-reuse=no`` builds anew, and leaves nothing but the empty data directory."""
    for _ in range(2):
        planted.run("--chatdify-db-reuse=no").assert_outcomes(passed=2)

    assert built(planted) == 2


def test_what_fits_one_run_alone_is_not_kept(planted: Project, own_cache: Path) -> None:
    """A seed that holds what cannot be told from run to run is planted anew, and takes no room in the cache."""
    planted.write(
        "conftest.py", _SEED.replace("return plant", "lock = object()\n    return lambda s: plant(s) or lock")
    )
    for _ in range(2):
        planted.run().assert_outcomes(passed=2)

    assert built(planted) == 2
    assert not list(own_cache.glob("template-*"))


@pytest.fixture(scope="module")
def theirs() -> Iterator[Server]:
    """A server that stands for the user's own."""
    run = Run.create()
    yield servers.start("embedded", image="", run=run, progress=lambda line: None)
    run.close()


def left_on(server: Server) -> list[str]:
    """Return the plugin's databases, and drop them."""
    with connect(server.address) as connection:
        names = admin.databases(connection, naming.PREFIX)
        for name in names:
            admin.drop_database(connection, name)
    return names


def test_a_template_stays_on_an_external_server(planted: Project, theirs: Server) -> None:
    """The second run finds it; beside it nothing is left."""
    for _ in range(2):
        planted.run(server=theirs.address.url()).assert_outcomes(passed=2)

    assert built(planted) == 1
    assert [name.startswith(naming.KEPT_PREFIX) for name in left_on(theirs)] == [True]


def test_nothing_stays_on_an_external_server_without_reuse(planted: Project, theirs: Server) -> None:
    """What the run made for itself is dropped, its template too."""
    planted.run("--chatdify-db-reuse=no", server=theirs.address.url()).assert_outcomes(passed=2)

    assert left_on(theirs) == []


def test_a_killed_run_is_cleaned_up_by_the_next(planted: Project, theirs: Server) -> None:
    """What it left on an external server is known by its lease, which nobody holds any more."""
    planted.write(
        "test_killed.py",
        """
        import os, signal
        from store import add

        def test_it():
            add("two")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    killed = planted.run("test_killed.py", server=theirs.address.url())
    with connect(theirs.address) as connection:
        before = admin.databases(connection, naming.PREFIX)
    planted.run("test_it.py", server=theirs.address.url()).assert_outcomes(passed=2)

    assert killed.ret != 0
    assert len(before) == 2
    assert [name.startswith(naming.KEPT_PREFIX) for name in left_on(theirs)] == [True]

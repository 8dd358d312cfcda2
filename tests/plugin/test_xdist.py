"""Several workers: one server, a database and a sandbox for each, and nothing left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_XDIST = "pytest_asyncio.plugin xdist.plugin"


def test_one_server_for_all(project: Project) -> None:
    """The workers share one server and write the same keys without meeting each other."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest
        from store import add, names

        @pytest.mark.parametrize("number", range(8))
        def test_it(number, chatdify_db, worker_id):
            assert names() == []
            add("same key")
            assert chatdify_db.statements
            with open(f"server-{chatdify_db.server.address.host.replace('/', '_')}", "a"): ...
        """,
    )

    result = project.run("-n2", plugins=_XDIST)

    result.assert_outcomes(passed=8)
    assert len(list(project.pytester.path.glob("server-*"))) == 1
    assert result.stdout.str().count("chatdify-db: PostgreSQL") == 1


def test_worker_that_dies(project: Project) -> None:
    """A worker that is killed is replaced, and its successor works on the same server."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import os, signal
        from store import add, names

        def test_before(): add("one")

        def test_dies():
            add("two")
            os.kill(os.getpid(), signal.SIGKILL)

        def test_after(): assert names() == []
        """,
    )

    result = project.run("-n1", plugins=_XDIST)

    result.assert_outcomes(passed=2, failed=1)


def test_controller_starts_nothing(project: Project) -> None:
    """Workers whose tests use no database leave the controller without a server, and without a line about one."""
    project.write("test_it.py", "def test_it(): ...")

    result = project.run("-n1", plugins=_XDIST)

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("chatdify-db: PostgreSQL*")

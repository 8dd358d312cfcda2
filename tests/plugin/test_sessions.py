"""The fixtures ``session`` and ``sync_session``, under every plugin and event loop that may run a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

_SCOPES = """
import pytest
from sqlalchemy import select
from models import Item
from store import names

{mark}

async def both_see(session):
    assert names() == []
    session.add(Item(name="async"))
    await session.commit()
    assert names() == ["async"]

@pytest.mark.asyncio
async def test_default(session): await both_see(session)

@pytest.mark.asyncio
async def test_default_again(session): await both_see(session)

@pytest.mark.asyncio(loop_scope="function")
async def test_function(session): await both_see(session)

@pytest.mark.asyncio(loop_scope="module")
async def test_module(session): await both_see(session)

@pytest.mark.asyncio(loop_scope="package")
async def test_package(session): await both_see(session)

@pytest.mark.asyncio(loop_scope="session")
async def test_session(session): await both_see(session)

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_class(self, session): await both_see(session)

    async def test_class_again(self, session): await both_see(session)
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
@pytest.mark.parametrize("default", ["function", "session"])
def test_every_loop_scope(project: Project, mode: str, default: str) -> None:
    """``session`` works in every loop scope, and nothing is left open in any of them."""
    project.write_models()
    project.write("test_loops.py", _SCOPES.format(mark=""))

    result = project.run(f"--asyncio-mode={mode}", "-o", f"asyncio_default_test_loop_scope={default}")

    result.assert_outcomes(passed=8)


def test_anyio(project: Project) -> None:
    """``session`` works where anyio runs the test, and says so where that is not asyncio."""
    project.write_models()
    project.write(
        "test_anyio.py",
        """
        import pytest
        from models import Item
        from store import names

        pytestmark = pytest.mark.anyio

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request): return request.param

        async def test_session(session):
            session.add(Item(name="async"))
            await session.commit()
            assert names() == ["async"]
        """,
    )

    result = project.run(plugins="anyio.pytest_plugin")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["chatdify-db: * asks for the fixture 'session', but runs on trio."])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_beside_auto_mode(project: Project, backend: str) -> None:
    """Where pytest-asyncio takes a test marked for anyio, the session is in its loop, or the two are named."""
    project.write_models()
    project.write(
        "test_anyio.py",
        f"""
        import pytest
        from models import Item

        @pytest.fixture
        def anyio_backend(): return "{backend}"

        @pytest.mark.anyio
        async def test_session(session):
            session.add(Item(name="async"))
            await session.flush()
        """,
    )

    second = project.run("--asyncio-mode=auto", plugins="anyio.pytest_plugin pytest_asyncio.plugin")
    first = project.run("--asyncio-mode=auto", plugins="pytest_asyncio.plugin anyio.pytest_plugin")

    second.assert_outcomes(passed=1)
    if first.ret != pytest.ExitCode.OK:  # pytest-asyncio 1.0 takes the fixtures in any case
        first.assert_outcomes(errors=1)
        first.stdout.fnmatch_lines(["chatdify-db: * asks for the fixture 'session', but two plugins run it in two *"])


def test_without_event_loop(project: Project) -> None:
    """A plain function, and a coroutine function that no plugin runs, are told what to do."""
    project.write_models()
    project.write(
        "test_plain.py",
        """
        def test_plain(session): ...

        async def test_unmarked(session): ...

        def test_sync(sync_session):
            from sqlalchemy import text
            assert sync_session.execute(text("SELECT 1")).scalar() == 1
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: *::test_plain asks for the fixture 'session', an AsyncSession, but is a plain function.",
            "  - use the fixture 'sync_session' instead",
            "  - make it 'async def'",
            "chatdify-db: *::test_unmarked asks for the fixture 'session', but no plugin runs it in an event loop.",
            "  - mark it with @pytest.mark.asyncio (pip install pytest-asyncio)",
        ]
    )


def test_both_sessions_in_one_test(project: Project) -> None:
    """The two sessions of a test see each other's commits, through two drivers, and rollbacks stay private."""
    project.write_models()
    project.write(
        "test_both.py",
        """
        import pytest
        from sqlalchemy import select
        from models import Item

        @pytest.fixture
        def user(sync_session):
            sync_session.add(Item(name="user"))
            sync_session.commit()

        @pytest.mark.asyncio
        async def test_both(session, sync_session, user):
            assert (await session.scalars(select(Item.name))).all() == ["user"]
            await session.rollback()
            session.add(Item(name="async"))
            await session.commit()
            assert sorted(sync_session.scalars(select(Item.name))) == ["async", "user"]
            sync_session.add(Item(name="undone"))
            sync_session.flush()
            sync_session.rollback()
            assert sorted(await session.scalars(select(Item.name))) == ["async", "user"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_override_in_conftest(project: Project) -> None:
    """A project's own fixture ``session`` wins, may build on this plugin's, and alone starts nothing."""
    project.write_models()
    project.write("conftest.py", "import pytest\n@pytest.fixture\ndef session(): return 'mine'")
    project.write("test_own.py", "def test_own(session): assert session == 'mine'")

    result = project.run()

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("chatdify-db: PostgreSQL*")


def test_two_plugins_define_it(project: Project) -> None:
    """Where another plugin defines ``session`` too, the test that asks for it is told which."""
    project.write("rival.py", "import pytest\n@pytest.fixture\ndef session(): return 'theirs'")
    project.write("test_it.py", "def test_it(session): ...\ndef test_other(): ...")

    result = project.run(plugins="rival")

    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: test_it.py::test_it asks for the fixture 'session', which 2 plugins define.",
            "Cause: it is defined by *rival*",
            "  - switch one of the plugins off: pytest -p no:<name>",
        ]
    )


def test_module_beside_a_plugin_defines_it(project: Project) -> None:
    """A test module decides for itself, also where a plugin comes from the same package as it."""
    project.write("tests/__init__.py", "")
    project.write("tests/helpers.py", "")
    project.write("conftest.py", "pytest_plugins = ['tests.helpers']")
    project.write(
        "tests/test_it.py",
        "import pytest\n@pytest.fixture\ndef session(): return 'mine'\ndef test_it(session): assert session == 'mine'",
    )

    project.run().assert_outcomes(passed=1)


#: Tables of a project that does not use the production layer.
NUMBERS = """
from sqlalchemy import Column, Integer, MetaData, Table

metadata = MetaData()
numbers = Table("numbers", metadata, Column("number", Integer, primary_key=True))
"""


def test_project_without_the_layer(project: Project) -> None:
    """A project whose package ``app`` is another one gets sessions on engines of the plugin's own."""
    project.write("app/__init__.py", "")
    project.write("tables.py", NUMBERS)
    project.write(
        "test_it.py",
        """
        import pytest
        from tables import numbers

        @pytest.mark.asyncio
        async def test_it(session, sync_session):
            await session.execute(numbers.insert().values(number=1))
            await session.commit()
            assert sync_session.execute(numbers.select()).scalars().all() == [1]
        """,
    )

    result = project.run("--chatdify-db-metadata=tables:metadata")

    result.assert_outcomes(passed=1)


def test_project_that_does_not_use_the_layer(project: Project) -> None:
    """A project with tables of its own that imports no more than the layer's pool is not subject to its settings."""
    project.write("tables.py", NUMBERS)
    project.write(
        "test_it.py",
        """
        import os
        import sys

        import pytest
        from app.db.pools import LoopLocalQueuePool
        from tables import numbers

        os.environ["DB_POOL_SIZE"] = "of something else"

        @pytest.mark.asyncio
        @pytest.mark.parametrize("round", range(3))
        async def test_async(session, sync_session, round):
            await session.execute(numbers.insert().values(number=1))
            await session.commit()
            assert sync_session.execute(numbers.select()).scalars().all() == [1]
            assert "pydantic" not in sys.modules

        @pytest.mark.parametrize("round", range(2))
        def test_one_engine(sync_session, request, round):
            seen = request.config.__dict__.setdefault("seen", sync_session.get_bind())
            assert sync_session.get_bind() is seen
        """,
    )

    result = project.run("--chatdify-db-metadata=tables:metadata", "-o", "pythonpath=.", from_nothing=True)

    result.assert_outcomes(passed=5)

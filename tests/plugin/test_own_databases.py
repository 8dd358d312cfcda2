"""Tests with a database of their own find the rows of wider fixtures in it, committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_SCOPES = """
import pytest
import pytest_asyncio
from app.db import get_async_session
from models import Item
from store import add, names

pytestmark = pytest.mark.chatdify_db(isolation="database")

@pytest.fixture(scope="session")
def of_session(): add("session")

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_module(of_session):
    async with get_async_session() as session:
        session.add(Item("module"))

@pytest.fixture(scope="class")
def of_class():
    add("class")
    yield
    add("torn down")

def test_empty():
    assert names() == []
    add("test")

class TestClass:
    def test_class(self, of_class):
        assert names() == ["class"]
        add("test")

    @pytest.mark.asyncio
    async def test_wider_after_narrower(self, of_class, of_module):
        assert names() == ["class", "module", "session"]
        add("test")

    def test_all_stay(self, of_class):
        assert names() == ["class", "module", "session"]
        add("test")

    @pytest.mark.chatdify_db(isolation="transaction")
    def test_shared(self, of_class):
        assert names() == ["class", "module", "session"]
        add("test")

    @pytest.mark.chatdify_db(reset_sequences=True)
    def test_ids_go_on(self, of_class):
        add("test")
        assert len(names()) == 4

def test_class_is_over():
    assert names() == ["module", "session"]
"""


def test_rows_live_as_long_as_their_scope(project: Project) -> None:
    """Sync and async fixtures of every scope, tests of both kinds in one class: the rows are those of the sandbox."""
    project.write_models()
    project.write("test_scopes.py", _SCOPES)
    project.write("test_then.py", "from store import names\ndef test_over():\n    assert names() == ['session']")

    result = project.run("--chatdify-db-isolation=database")

    result.assert_outcomes(passed=8)


def test_each_begins_with_the_rows(project: Project) -> None:
    """What one test does to the rows of a fixture, a deletion or a change, the next one does not find."""
    project.write_models()
    project.write(
        "test_rows.py",
        """
        import pytest
        from sqlalchemy import text
        from app.db import get_sync_session
        from store import add, names

        @pytest.fixture(scope="module", autouse=True)
        def rows():
            add("one")
            add("two")

        @pytest.mark.chatdify_db(isolation="database")
        @pytest.mark.parametrize("sql", ["DELETE FROM item", "DROP TABLE item", "UPDATE item SET name = id", "SELECT"])
        @pytest.mark.parametrize("times", range(2))
        def test_rows(sql, times):
            assert names() == ["one", "two"]
            with get_sync_session() as session:
                session.execute(text(sql))

        def test_shared():
            assert names() == ["one", "two"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=9)


def test_what_a_fixture_changed_is_told(project: Project) -> None:
    """A wider fixture that makes a table cannot be followed into another database, and the test is told so."""
    project.write_models()
    project.write(
        "test_changed.py",
        """
        import pytest
        from sqlalchemy import text
        from app.db import get_sync_session
        from store import add, names

        @pytest.fixture(scope="class")
        def made():
            add("row")
            with get_sync_session() as session:
                session.execute(text("CREATE TABLE made (x int)"))

        class TestChanged:
            @pytest.mark.chatdify_db(isolation="database")
            def test_refused(self, made): ...

            def test_shared(self, made):
                assert names() == ["row"]

        @pytest.mark.chatdify_db(isolation="database")
        def test_after():
            assert names() == []
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: test_changed.py::TestChanged::test_refused cannot have a database of its own.",
            "Cause: the fixture 'made' changed the schema, and only rows are copied from the sandbox: table made*",
            "To fix this, either:",
        ]
    )


def test_what_belongs_to_the_server_stays(project: Project) -> None:
    """A role that a test with a database of its own has made is there in later ones; one of the transaction is not."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import models
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("isolation", [
            pytest.param(each, marks=pytest.mark.chatdify_db(isolation=each)) for each in ("transaction", "database")
        ])
        def test_one(sync_session, isolation):
            sync_session.execute(text(f"CREATE ROLE of_a_{isolation}"))
            sync_session.commit()

        @pytest.mark.chatdify_db(isolation="database")
        def test_two(sync_session):
            roles = sync_session.scalars(text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'of_a_%'"))
            assert roles.all() == ["of_a_database"]
        """,
    )

    project.run().assert_outcomes(passed=3)

"""What users are told of code that uses the database too early, or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


def test_a_variable_that_the_project_changes(project: Project) -> None:
    """A conftest that sets ``DATABASE_URL`` by itself would lead to a real database: refused, without its password."""
    project.write(
        "conftest.py", "import os\nos.environ['DATABASE_URL'] = 'postgresql://me:secret@production.example/db'"
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: DATABASE_URL no longer names the tests' database; *",
            "Cause: a conftest.py, * set it to postgresql://me:[*][*][*]@production.example:5432/db after *",
            "  - remove the line that sets DATABASE_URL: *",
        ]
    )
    assert "secret" not in result.stdout.str()


def test_an_import_in_a_test_comes_too_late(project: Project) -> None:
    """A test that imports the application only while it runs is refused a connection and told why."""
    project.write_models()
    project.write("test_it.py", "def test_it():\n    from store import names\n    names()")

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["The tests' database was not running: this test, *import app.db*, while it ran."])


@pytest.mark.parametrize(
    ("conftest", "line"),
    [
        ("def pytest_configure(config): add('x')", "conftest.py:2 in pytest_configure"),
        ("def pytest_sessionstart(session): add('x')", "conftest.py:2 in pytest_sessionstart"),
        ("def pytest_generate_tests(metafunc): add('x')", "conftest.py:2 in pytest_generate_tests"),
        ("def pytest_collection_modifyitems(items): add('x')", "conftest.py:2 in pytest_collection_modifyitems"),
        ("def pytest_runtest_setup(item): add('x')", "conftest.py:2 in pytest_runtest_setup"),
        (
            "import pytest\n@pytest.fixture(scope='session')\ndef chatdify_db_seed(): add('x')",
            "conftest.py:4 in chatdify_db_seed",
        ),
    ],
)
def test_use_before_the_start(project: Project, conftest: str, line: str) -> None:
    """A hook, or the fixture of the seed, that connects before the database runs is told when it does."""
    project.write_models()
    project.write("conftest.py", f"from store import add\n{conftest}")
    project.write("test_it.py", "def test_it(sync_session): ...")

    result = project.run()

    pytest.LineMatcher([*result.outlines, *result.errlines]).fnmatch_lines(
        [
            "*chatdify-db: the database was used before it was running; it starts in the set-up of the first test*",
            f"*Cause: {line} connects before that: *refused*",
            "*To fix this, either:",
            "*  - do it in a fixture, *",
            "*  - let every test start with rows: *",
        ]
    )


def test_a_plugin_of_the_project_that_connects_when_it_is_imported(project: Project) -> None:
    """A module that a conftest names as a plugin is told which line of it connects."""
    project.write_models()
    project.write("conftest.py", "pytest_plugins = ['rows']")
    project.write("rows.py", "from store import add\nadd('x')")

    project.run().stderr.fnmatch_lines(
        [
            "*chatdify-db: the database was used while pytest was importing modules; it runs while tests do.",
            "*Cause: rows.py:2 connects when its module is imported: *refused*",
        ]
    )


def test_an_import_in_a_fixture_comes_too_late(project: Project) -> None:
    """Nobody could know that the test needs the database; the text says how to tell."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.fixture
        def item():
            from store import add
            add("x")

        def test_it(item): ...
        """,
    )

    project.run().stdout.fnmatch_lines(["*  - if this is a test or its fixture: import app.db, or *"])

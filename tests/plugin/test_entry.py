"""How the plugin gets into a pytest process, each way that users try; and what it costs where nobody uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.needs import WITHOUT_OURS

if TYPE_CHECKING:
    from tests.conftest import Project

_LOADED = "def test_loaded(request): assert request.config.pluginmanager.hasplugin('chatdify_db')"
_FIXTURE = "def test_fixture(override_dependencies): ..."
_BLOCKED = "def test_blocked(request): assert not request.config.pluginmanager.hasplugin('chatdify_db')"


@pytest.fixture
def autoload(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load plugins by their entry points, as pytest does unless it is told otherwise."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(WITHOUT_OURS))


@pytest.mark.parametrize("name", ["chatdify_db", "pytest_chatdify_db"])
def test_named_without_autoload(project: Project, name: str) -> None:
    """``-p chatdify_db`` and ``-p pytest_chatdify_db`` load the plugin with autoload off."""
    project.write("test_it.py", _LOADED)

    result = project.pytester.runpytest_subprocess("-p", name)

    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("autoload")
@pytest.mark.parametrize("args", [[], ["-p", "chatdify_db"], ["-p", "pytest_chatdify_db"]])
def test_named_with_autoload(project: Project, args: list[str]) -> None:
    """Autoload alone loads the plugin, and naming it beside that does no harm."""
    project.write("test_it.py", _LOADED)

    result = project.pytester.runpytest_subprocess(*args)

    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("autoload")
def test_blocked(project: Project) -> None:
    """``-p no:chatdify_db`` switches the plugin off."""
    project.write("test_it.py", _BLOCKED)

    result = project.pytester.runpytest_subprocess("-p", "no:chatdify_db")

    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("autoload")
def test_blocked_by_package_name(project: Project) -> None:
    """``-p no:pytest_chatdify_db``, which would block nothing, says so."""
    project.write("test_it.py", _BLOCKED)

    result = project.pytester.runpytest_subprocess("-p", "no:pytest_chatdify_db")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*does not switch the plugin off*", "To fix this: -p no:chatdify_db"])


@pytest.mark.usefixtures("autoload")
def test_blocked_beats_package_name(project: Project) -> None:
    """A block holds also where a conftest names the package."""
    project.write("conftest.py", "pytest_plugins = ['pytest_chatdify_db']")
    project.write("test_it.py", _BLOCKED)

    result = project.pytester.runpytest_subprocess("-p", "no:chatdify_db")

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("is_autoloaded", [True, False])
def test_named_in_conftest(project: Project, request: pytest.FixtureRequest, *, is_autoloaded: bool) -> None:
    """``pytest_plugins = ["pytest_chatdify_db"]`` in a conftest loads the plugin, with autoload on and off."""
    if is_autoloaded:
        request.getfixturevalue("autoload")
    project.write("conftest.py", "pytest_plugins = ['pytest_chatdify_db']")
    project.write(
        "test_it.py", _LOADED + "\nimport os\ndef test_url(): assert '127.0.0.1' in os.environ['DATABASE_URL']"
    )

    result = project.pytester.runpytest_subprocess()

    result.assert_outcomes(passed=2)


@pytest.mark.usefixtures("autoload")
def test_named_by_module(project: Project) -> None:
    """Naming the inner module, under which the plugin is not registered, stops the run."""
    project.write("test_it.py", _LOADED)

    result = project.pytester.runpytest_subprocess("-p", "pytest_chatdify_db.plugin")

    assert result.ret != pytest.ExitCode.OK


@pytest.mark.parametrize("name", ["chatdify_db", "pytest_chatdify_db"])
def test_nothing_heavy_is_imported(project: Project, name: str) -> None:
    """With the plugin loaded, by either name, and no test that uses a database, nothing of its extras is imported."""
    project.write(
        "test_it.py",
        """
        import sys

        def test_modules():
            heavy = {"sqlalchemy", "fastapi", "celery", "testcontainers", "asyncpg", "psycopg2", "pydantic", "asyncio"}
            assert not {*heavy, "app"} & set(sys.modules)
        """,
    )

    result = project.run("-p", name, plugins="", from_nothing=True)

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("chatdify-db: PostgreSQL*")


@pytest.mark.parametrize("flag", ["--help", "--version", "--collect-only", "--fixtures", "--markers"])
def test_information_in_a_broken_state(project: Project, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """What pytest says about itself and the tests does not depend on valid options or a usable server."""
    monkeypatch.setenv("CHATDIFY_DB_ISOLATION", "nonsense")
    monkeypatch.setenv("DATABASE_URL", "not a url")
    project.write("test_it.py", _FIXTURE)

    result = project.run(flag, server="postgresql://nobody@127.0.0.1:1/nowhere")

    expected = pytest.ExitCode.USAGE_ERROR if flag in {"--fixtures", "--markers"} else pytest.ExitCode.OK
    assert result.ret == expected


@pytest.mark.parametrize("flag", ["--help", "--version", "--collect-only"])
def test_information_without_anything_that_works(project: Project, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """No engine, no cache, no tables, no migrations: nothing of it is needed before a test runs."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setenv("CHATDIFY_DB_METADATA", "nowhere:Base")
    monkeypatch.setenv("CHATDIFY_DB_MIGRATIONS", "/nowhere/alembic.ini")
    monkeypatch.setenv("CHATDIFY_DB_IMAGE", "127.0.0.1:1/nothing:1")
    project.write("test_it.py", _FIXTURE)

    assert project.run(flag, server="container").ret == pytest.ExitCode.OK


def test_marker_is_listed(project: Project) -> None:
    """``--markers`` shows the marker with its signature, and ``--strict-markers`` knows it."""
    result = project.run("--markers")

    result.stdout.fnmatch_lines(["@pytest.mark.chatdify_db(?, isolation=*"])


def test_environment_before_conftest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables name the sandbox when the first conftest is imported, and nobody listens there yet."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://production.example/db")
    monkeypatch.setenv("PGSERVICE", "production")
    project.write(
        "conftest.py",
        """
        import os, socket, urllib.parse
        import pytest

        url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
        assert url.hostname == "127.0.0.1" and url.password == os.environ["PGPASSWORD"]
        assert os.environ["POSTGRES_PASSWORD"] == url.password and os.environ["DB_PORT"] == str(url.port)
        assert "PGSERVICE" not in os.environ
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", url.port))
        """,
    )
    project.write("test_it.py", "def test_nothing(): ...")

    result = project.run()

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("body", ["...", "raise RuntimeError"])
def test_environment_is_put_back(project: Project, body: str) -> None:
    """After the run, also after one that ended in a conftest's error, the environment is exactly what it was."""
    project.write("conftest.py", body)
    project.write("test_it.py", "def test_nothing(): ...")
    script = project.write(
        "run.py",
        """
        import os, pytest

        os.environ.pop("PGHOST", None)
        os.environ.update(DATABASE_URL="not a url", PGSERVICE="mine", PGPORT="")
        def ours():
            return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

        before = ours()
        pytest.main(["-p", "chatdify_db"])
        assert ours() == before
        print("put back")
        """,
    )

    result = project.pytester.runpython(script)

    result.stdout.fnmatch_lines(["put back"])


def test_settings_read_before_are_forgotten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that reads the application's settings when it is imported does not fix them for the run."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@production.example/db")
    project.write("early.py", "import app.config; app.config.get_settings()")
    project.write(
        "test_it.py",
        """
        from app.config import get_settings

        def test_host():
            assert get_settings().url.host == "127.0.0.1"
        """,
    )

    result = project.pytester.runpytest_subprocess("-p", "early", "-p", "chatdify_db")

    result.assert_outcomes(passed=1)


def test_engine_made_before_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of the application that is older than the plugin would reach the real database: no test is run."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@production.example/db")
    project.write("early.py", "from app.db import sync_engine")
    project.write("test_it.py", "def test_nothing(): ...")

    result = project.pytester.runpytest_subprocess("-p", "early", "-p", "chatdify_db")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*connected to another database than the tests' one; no test was run.", "Cause: app.db made its engine *"]
    )
    result.stderr.no_fnmatch_line("*secret*")


def test_arguments_by_name(project: Project) -> None:
    """The arguments of the fixtures' values can be given by the names that the documentation calls them by."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        from celery import Celery
        from fastapi import Depends, FastAPI

        tasks = Celery("tasks", broker="amqp://localhost")
        api = FastAPI()

        def user(): return "nobody"

        @api.get("/")
        def index(name: str = Depends(user)): return name

        def test_it(celery_eager, override_dependencies, assert_num_queries, assert_max_num_queries, live_server):
            assert celery_eager(celery_app=tasks, propagates=True, store_results=False) is tasks
            assert override_dependencies(app=api, overrides={user: "me"}) is api
            assert live_server(app=api).url.startswith("http://127.0.0.1:")
            with assert_num_queries(n=0), assert_max_num_queries(n=0):
                pass
        """,
    )

    project.run().assert_outcomes(passed=1)

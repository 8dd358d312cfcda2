"""A mini-project for tests of the plugin: files written, pytest run on them in a process of its own."""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

from tests import forkserver

# pytester gives every test a home of its own; to initialise a data directory for each would take most of its time.
_CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")

_ASYNCIO = "pytest_asyncio.plugin"

_INI = """
[pytest]
filterwarnings =
    error
    ignore:The configuration option "asyncio_default_fixture_loop_scope" is unset
"""

_MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50), unique=True)
"""

_STORE = """
from sqlalchemy import select

from app.db import get_sync_session
from models import Item


def add(name):
    with get_sync_session() as session:
        session.add(Item(name=name))


def names():
    with get_sync_session() as session:
        return sorted(session.execute(select(Item.name)).scalars())
"""


class Project:
    """A project under test, in a directory of its own.

    Args:
        pytester: What runs it.
    """

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self._runs = count()
        self.write("pytest.ini", _INI)

    def write(self, path: str, text: str) -> Path:
        """Write the file *path* with *text*, indented or not."""
        file = self.pytester.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def write_models(self) -> None:
        """Write ``models.Item``, and ``store`` with ``add(name)`` and ``names()`` on sync sessions."""
        self.write("models.py", _MODELS)
        self.write("store.py", _STORE)

    def run(
        self, *args: str, server: str | None = "embedded", plugins: str = _ASYNCIO, from_nothing: bool = False
    ) -> pytest.RunResult:
        """Run pytest on the project in a process of its own.

        Args:
            args: Further arguments.
            server: The option ``--chatdify-db-server``; None to leave it out.
            plugins: Names of the plugins to load beside this one.
            from_nothing: Whether the process is a new interpreter, instead of one that has imported pytest,
                SQLAlchemy and the drivers already: for tests of what is imported, or when.
        """
        chosen = [] if server is None else [f"--chatdify-db-server={server}"]
        loaded = [argument for name in ["chatdify_db", *plugins.split()] for argument in ("-p", name)]
        if _ASYNCIO in plugins.split():
            chosen += ["-o", "asyncio_default_fixture_loop_scope=function"]
        run = self.pytester.runpytest_subprocess if from_nothing else self._run_forked
        return run(*loaded, *chosen, *args)

    def _run_forked(self, *args: str) -> pytest.RunResult:
        """Do as ``runpytest_subprocess`` does."""
        basetemp = self.pytester.path / f"run-{next(self._runs)}"
        places = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        begun = time.perf_counter()
        done = forkserver.run(
            ["-m", "pytest", f"--basetemp={basetemp}", *args], cwd=Path.cwd(), environment=environment
        )
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        duration = time.perf_counter() - begun
        return pytest.RunResult(
            _exit_code(done.returncode), done.stdout.splitlines(), done.stderr.splitlines(), duration
        )


def _exit_code(code: int) -> int | pytest.ExitCode:
    try:
        return pytest.ExitCode(code)
    except ValueError:
        return code


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A mini-project; options and plugins of the surrounding run do not reach it."""
    for name in [name for name in os.environ if name.startswith("CHATDIFY_DB_")]:
        monkeypatch.delenv(name)
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):  # with the last two pytest does not shorten its summary
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", _CACHE)
    return Project(pytester)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin's directory in a cache of the test's own: in it are no templates, but what ``initdb`` made once."""
    cache = tmp_path / "cache" / "chatdify-db"
    cache.mkdir(parents=True)
    for entry in Path(_CACHE, "chatdify-db").glob("data-*.tar"):
        (cache / entry.name).symlink_to(entry)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    return cache

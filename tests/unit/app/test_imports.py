"""The public door: cheap to import, complete, and open in every environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import app.db
import app.db.session
from app.config import ConfigurationError
from app.db import engines

ROOT = Path(__file__).parents[3]
CONTRACT = {
    "AsyncSessionLocal",
    "Base",
    "SyncSessionLocal",
    "async_engine",
    "check_database",
    "create_tables",
    "create_tables_async",
    "dispose_engines",
    "drop_tables",
    "drop_tables_async",
    "get_async_session",
    "get_session",
    "get_sync_session",
    "on_commit",
    "sync_engine",
}


def run(code: str, **environment: str) -> str:
    """Run *code* in a fresh interpreter that fails on any warning, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_cheap() -> None:
    """Importing the package and the deprecated module loads no library at all."""
    code = """
import sys
import app.db, app.database
print(sorted({name.partition(".")[0] for name in sys.modules} & {
    "sqlalchemy", "pydantic", "pydantic_settings", "asyncpg", "psycopg2", "fastapi", "celery", "sqlmodel", "asyncio"}))
"""
    assert run(code) == "[]"


def test_sessions_load_no_driver_and_no_framework() -> None:
    """The names of the sessions need SQLAlchemy alone: no driver, no FastAPI, no Celery."""
    code = """
import sys
from app.db import get_session, get_sync_session, AsyncSessionLocal, on_commit, is_retryable
print(sorted({name.partition(".")[0] for name in sys.modules} & {"asyncpg", "psycopg2", "fastapi", "celery"}))
"""
    assert run(code) == "[]"


def test_everything_imports_without_an_environment() -> None:
    """With no variable set and with a wrong one, every name but the engines can be imported."""
    names = ", ".join(sorted(set(app.db.__all__) - {name for name in app.db.__all__ if name.endswith("_engine")}))

    assert run(f"from app.db import {names}; print('ok')") == "ok"
    assert run(f"from app.db import {names}; print('ok')", DATABASE_URL="nonsense", DB_POOL_SIZE="x") == "ok"


def test_contract() -> None:
    """Every promised name is there."""
    assert set(app.db.__all__) >= CONTRACT


def test_all_is_complete_and_sorted() -> None:
    """``__all__``, the table of lazy names, and the imports that type checkers read are the same names."""
    tree = ast.parse(Path(app.db.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    assert app.db.__all__ == sorted(app.db.__all__)
    assert set(app.db.__all__) == typed == set(app.db._HOME)
    assert set(app.db.__all__) <= set(dir(app.db))


def test_each_module_exports_what_it_says(environment: pytest.MonkeyPatch) -> None:
    """Every name of a module's ``__all__`` is there; a star import takes them all."""
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")
    for module in (
        "base",
        "dependencies",
        "drivers",
        "engines",
        "errors",
        "guard",
        "hooks",
        "legacy",
        "parameters",
        "pools",
        "session",
        "urls",
    ):
        namespace: dict[str, object] = {}
        exec(f"from app.db.{module} import *", namespace)
        exec(f"from app.db.{module} import __all__ as names", namespace)

        names = namespace["names"]
        assert isinstance(names, list)
        assert set(names) <= set(namespace)


@pytest.mark.parametrize("module", [app.db, app.db.session])
def test_unknown_name(module: object) -> None:
    """An unknown name is an AttributeError that names the module."""
    with pytest.raises(AttributeError, match=r"module 'app\.db.*' has no attribute 'get_sesion'"):
        _ = module.get_sesion  # type: ignore[attr-defined]  # there is no such name


@pytest.mark.parametrize("name", ["sync_engine", "async_engine", "sync_replica_engine", "async_replica_engine"])
def test_an_engine_without_configuration(environment: pytest.MonkeyPatch, name: str) -> None:
    """Asking for an engine where nothing is configured says what is missing; ``hasattr`` does not hide it."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        hasattr(app.db, name)


def test_engines_are_the_same_objects_everywhere(environment: pytest.MonkeyPatch) -> None:
    """An engine is one object, by whatever name and however early it was imported."""
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")

    from app.db import async_engine, sync_engine

    assert sync_engine is app.db.sync_engine is app.db.session.sync_engine is engines.sync_engine()
    assert async_engine is app.db.async_engine is app.db.session.async_engine is engines.async_engine()
    assert "sync_engine" in dir(app.db.session)

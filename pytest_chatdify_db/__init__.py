"""Tests against a real PostgreSQL: one rolled-back transaction for every driver, thread, event loop and process.

The plugin is loaded by its entry point, ``pytest -p chatdify_db``. This package gives the types of its fixtures, for
annotations. They are loaded when they are first asked for, because this module is imported before every other one.
``dir()`` does not show them: pytest looks at whatever that shows of a module that is named as a plugin.
There is no assertion in the package that pytest could rewrite: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_chatdify_db.contents.schema import Seed
    from pytest_chatdify_db.errors import ChatdifyDBError
    from pytest_chatdify_db.fixtures.celery import CeleryEager
    from pytest_chatdify_db.fixtures.concurrency import Concurrency, Listener, Notification, Outcome
    from pytest_chatdify_db.fixtures.database import Database
    from pytest_chatdify_db.fixtures.fastapi import OverrideDependencies
    from pytest_chatdify_db.fixtures.live_server import LiveServer, RunningServer
    from pytest_chatdify_db.fixtures.migrations import AssertMigrationsMatch
    from pytest_chatdify_db.fixtures.on_commit import CaptureOnCommit
    from pytest_chatdify_db.fixtures.queries import CountQueries
    from pytest_chatdify_db.servers.base import Server
    from pytest_chatdify_db.tracing.findings import (
        ChatdifyDBWarning,
        DirtyReadWarning,
        LeakWarning,
        NPlusOneWarning,
        StrayWriteWarning,
    )
    from pytest_chatdify_db.tracing.statements import Statement

__all__ = [
    "AssertMigrationsMatch",
    "CaptureOnCommit",
    "CeleryEager",
    "ChatdifyDBError",
    "ChatdifyDBWarning",
    "Concurrency",
    "CountQueries",
    "Database",
    "DirtyReadWarning",
    "LeakWarning",
    "Listener",
    "LiveServer",
    "NPlusOneWarning",
    "Notification",
    "Outcome",
    "OverrideDependencies",
    "RunningServer",
    "Seed",
    "Server",
    "Statement",
    "StrayWriteWarning",
]

_HOMES = {
    "AssertMigrationsMatch": "fixtures.migrations",
    "CaptureOnCommit": "fixtures.on_commit",
    "CeleryEager": "fixtures.celery",
    "ChatdifyDBError": "errors",
    "ChatdifyDBWarning": "tracing.findings",
    "Concurrency": "fixtures.concurrency",
    "CountQueries": "fixtures.queries",
    "Database": "fixtures.database",
    "DirtyReadWarning": "tracing.findings",
    "LeakWarning": "tracing.findings",
    "Listener": "fixtures.concurrency",
    "LiveServer": "fixtures.live_server",
    "NPlusOneWarning": "tracing.findings",
    "Notification": "fixtures.concurrency",
    "Outcome": "fixtures.concurrency",
    "OverrideDependencies": "fixtures.fastapi",
    "RunningServer": "fixtures.live_server",
    "Seed": "contents.schema",
    "Server": "servers.base",
    "Statement": "tracing.statements",
    "StrayWriteWarning": "tracing.findings",
}


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin for those who name the package, ``-p pytest_chatdify_db``, under its entry point's name."""
    if not pluginmanager.hasplugin("chatdify_db") and not pluginmanager.is_blocked("chatdify_db"):
        pluginmanager.register(import_module("pytest_chatdify_db.plugin"), "chatdify_db")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Deprecated names for code written before ``app.db``: they still work, and each import of one says what to use.

Every name is the very object of ``app.db``, so ``app.dependency_overrides[get_db]`` and ``[get_session]`` are one.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from app.db import async_engine, sync_engine
    from app.db import create_tables as create_db_tables
    from app.db import get_async_session as get_async_db
    from app.db import get_session as get_db
    from app.db.legacy import SessionLocal

    get_session = SessionLocal

__all__ = [
    "SessionLocal",
    "async_engine",
    "create_db_tables",
    "get_async_db",
    "get_db",
    "get_session",
    "sync_engine",
]

# Deprecated name -> the module and name of the object, and what new code writes instead.
_NAMES: Final = {
    "SessionLocal": ("app.db.legacy", "SessionLocal", "app.db.get_sync_session"),
    "async_engine": ("app.db", "async_engine", "app.db.async_engine"),
    "create_db_tables": ("app.db", "create_tables", "app.db.create_tables"),
    "get_async_db": ("app.db", "get_async_session", "app.db.get_async_session"),
    "get_db": ("app.db", "get_session", "app.db.get_session"),
    "get_session": ("app.db.legacy", "SessionLocal", "app.db.get_sync_session"),
    "sync_engine": ("app.db", "sync_engine", "app.db.sync_engine"),
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, original, instead = _NAMES[name]
    warnings.warn(f"app.database.{name} is deprecated; use {instead}", DeprecationWarning, stacklevel=2)
    return getattr(import_module(module), original)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

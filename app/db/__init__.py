"""The database of the application: import everything from here.

    from app.db import Base, get_session, get_sync_session

Importing this package costs next to nothing: each name is loaded when it is first asked for (PEP 562), and an engine
is made when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.db.base import Base, TimestampMixin
    from app.db.errors import (
        DatabaseError,
        DatabaseUnavailable,
        DriverMissing,
        TransactionAborted,
        is_retryable,
        sqlstate,
    )
    from app.db.hooks import OnCommitCall, apply_async_on_commit, delay_on_commit, on_commit
    from app.db.session import (
        AsyncSessionLocal,
        SyncSessionLocal,
        async_engine,
        async_replica_engine,
        get_async_session,
        get_readonly_session,
        get_session,
        get_streaming_session,
        get_sync_readonly_session,
        get_sync_session,
        sync_engine,
        sync_replica_engine,
    )
    from app.db.utils import (
        check_database,
        check_database_sync,
        create_tables,
        create_tables_async,
        dispose_engines,
        drop_tables,
        drop_tables_async,
        import_models,
    )

__all__ = [
    "AsyncSessionLocal",
    "Base",
    "DatabaseError",
    "DatabaseUnavailable",
    "DriverMissing",
    "OnCommitCall",
    "SyncSessionLocal",
    "TimestampMixin",
    "TransactionAborted",
    "apply_async_on_commit",
    "async_engine",
    "async_replica_engine",
    "check_database",
    "check_database_sync",
    "create_tables",
    "create_tables_async",
    "delay_on_commit",
    "dispose_engines",
    "drop_tables",
    "drop_tables_async",
    "get_async_session",
    "get_readonly_session",
    "get_session",
    "get_streaming_session",
    "get_sync_readonly_session",
    "get_sync_session",
    "import_models",
    "is_retryable",
    "on_commit",
    "sqlstate",
    "sync_engine",
    "sync_replica_engine",
]

_MODULES = {
    "base": ("Base", "TimestampMixin"),
    "errors": (
        "DatabaseError",
        "DatabaseUnavailable",
        "DriverMissing",
        "TransactionAborted",
        "is_retryable",
        "sqlstate",
    ),
    "hooks": ("OnCommitCall", "apply_async_on_commit", "delay_on_commit", "on_commit"),
    "session": (
        "AsyncSessionLocal",
        "SyncSessionLocal",
        "async_engine",
        "async_replica_engine",
        "get_async_session",
        "get_readonly_session",
        "get_session",
        "get_streaming_session",
        "get_sync_readonly_session",
        "get_sync_session",
        "sync_engine",
        "sync_replica_engine",
    ),
    "utils": (
        "check_database",
        "check_database_sync",
        "create_tables",
        "create_tables_async",
        "dispose_engines",
        "drop_tables",
        "drop_tables_async",
        "import_models",
    ),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

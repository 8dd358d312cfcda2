"""The deprecated module: every old name still works, is the new object, and warns where it is imported."""

from __future__ import annotations

import warnings
from unittest import mock

import pytest

import app.database
import app.db
from app.db import engines

OLD_AND_NEW = {
    "create_db_tables": "create_tables",
    "get_async_db": "get_async_session",
    "get_db": "get_session",
    "sync_engine": "sync_engine",
    "async_engine": "async_engine",
}


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW.items())
def test_the_same_object(environment: pytest.MonkeyPatch, old: str, new: str) -> None:
    """An old name is the very object of the new one, so that dependency overrides meet."""
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")

    with pytest.deprecated_call(match=rf"^app\.database\.{old} is deprecated; use app\.db\.{new}$"):
        assert getattr(app.database, old) is getattr(app.db, new)


def test_session_factories() -> None:
    """``SessionLocal`` and the synchronous ``get_session`` are one factory."""
    with pytest.deprecated_call():
        assert app.database.SessionLocal is app.database.get_session


def test_the_warning_points_at_the_import() -> None:
    """``from app.database import ...`` warns once per name, at the user's line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from app.database import SessionLocal, get_db, get_session  # noqa: F401 - the import is what is tested

    assert sorted({str(warning.message) for warning in caught}) == [
        "app.database.SessionLocal is deprecated; use app.db.get_sync_session",
        "app.database.get_db is deprecated; use app.db.get_session",
        "app.database.get_session is deprecated; use app.db.get_sync_session",
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_star_import(environment: pytest.MonkeyPatch) -> None:
    """``from app.database import *`` gives every old name."""
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")
    namespace: dict[str, object] = {}
    with pytest.deprecated_call():
        exec("from app.database import *", namespace)

    assert set(app.database.__all__) <= set(namespace)
    assert set(app.database.__all__) <= set(dir(app.database))


def test_unknown_name() -> None:
    """A name that never was there is an AttributeError, without a warning."""
    with pytest.raises(AttributeError, match=r"module 'app.database' has no attribute 'engine2'"):
        _ = app.database.engine2


def test_patching_leaves_nothing_behind(environment: pytest.MonkeyPatch) -> None:
    """A test that replaces an old name gets the real one back afterwards."""
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/db")
    with pytest.deprecated_call(), mock.patch.object(app.database, "sync_engine", "mine"):
        assert str(app.database.sync_engine) == "mine"

    with pytest.deprecated_call():
        assert app.database.sync_engine is engines.sync_engine()

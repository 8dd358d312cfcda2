"""The public names: each `__all__` is sorted, importable, and the same at run time as for type checkers."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import pytest_chatdify_db
from app import db
from tests import surface

PUBLIC = ("app.config", "app.database", "app.db", "pytest_chatdify_db")

# The names that users and checks rely on.
CONTRACT = frozenset(
    "Base get_session get_sync_session get_async_session async_engine sync_engine AsyncSessionLocal SyncSessionLocal "
    "create_tables create_tables_async drop_tables drop_tables_async on_commit check_database dispose_engines".split()
)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.filterwarnings("ignore:app.database:DeprecationWarning")
def test_every_public_name_is_there(name: str) -> None:
    """What ``__all__`` promises can be imported."""
    module = importlib.import_module(name)

    assert all(getattr(module, each) is not None for each in module.__all__)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "pytest_chatdify_db"])
def test_dir_shows_every_public_name(name: str) -> None:
    """Lazy ones included; the plugin's package, which pytest would load as a whole, shows none."""
    module = importlib.import_module(name)

    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.filterwarnings("ignore:app.database:DeprecationWarning")
def test_star_import_gives_every_public_name(name: str) -> None:
    """``from module import *`` gives the names of ``__all__``, lazy ones included."""
    namespace: dict[str, object] = {}
    exec(f"from {name} import *", namespace)

    assert set(importlib.import_module(name).__all__) <= set(namespace)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_sorted_and_single(name: str) -> None:
    """A list in order is a list one can check by eye."""
    names = importlib.import_module(name).__all__

    assert list(names) == sorted(set(names))


@pytest.mark.parametrize("module", [db, pytest_chatdify_db], ids=lambda module: str(module.__name__))
def test_type_checkers_see_the_same_names(module: object) -> None:
    """The imports under ``TYPE_CHECKING`` and the lazy table name the same things."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))  # type: ignore[attr-defined]  # a module's, by its name
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == set(module.__all__)  # type: ignore[attr-defined]  # a module's, by its name


def test_the_type_of_each_fixture_is_exported() -> None:
    """A test can annotate what it asks for: the value's type is a public name, of this package or of SQLAlchemy."""
    fixtures = {
        name: str(function.__annotations__["return"]).removeprefix("Iterator[").removesuffix("]")
        for name, function in surface.fixtures().items()
    }
    public = {*pytest_chatdify_db.__all__, "AsyncSession", "Session", "Seed | None"}

    assert {name: kind for name, kind in fixtures.items() if kind not in public} == {"chatdify_db_metadata": "object"}


def test_the_layer_keeps_its_contract() -> None:
    """The names of the foundation's page are exported."""
    assert set(db.__all__) >= CONTRACT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("async_engine", "async_engine"),
        ("create_db_tables", "create_tables"),
        ("get_async_db", "get_async_session"),
        ("get_db", "get_session"),
        ("sync_engine", "sync_engine"),
    ],
)
def test_a_deprecated_name_is_the_new_object(old: str, new: str) -> None:
    """FastAPI's overrides are looked up by identity: an override of either name reaches both."""
    with pytest.deprecated_call(match=f"app.database.{old} is deprecated; use app.db.{new}"):
        value = getattr(importlib.import_module("app.database"), old)

    assert value is getattr(db, new)


@pytest.mark.parametrize("name", PUBLIC)
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    """A misspelt import fails as in any other module."""
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = importlib.import_module(name).nonsense

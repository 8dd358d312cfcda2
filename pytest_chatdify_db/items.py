"""Questions about a collected test: its marker, whether it needs the database, and who defines its fixtures.

Nothing here changes a test or starts anything.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pytest_chatdify_db import markers
from pytest_chatdify_db.mistakes.fixtures import FixtureError
from pytest_chatdify_db.mistakes.options import MarkerError

if TYPE_CHECKING:
    import pytest

_PACKAGE = "pytest_chatdify_db."
_INTERNAL = "_chatdify_db_"
#: Public names short enough that another plugin may have them too.
_CONTESTED = ("session", "sync_session")


def mark_of(item: pytest.Item) -> markers.DatabaseMark | None:
    """Return what the test's markers say together, the closest last; None without a marker.

    Raises:
        MarkerError: One of them has arguments that the marker does not take.
    """
    marks = list(item.iter_markers(markers.NAME))
    if not marks:
        return None
    merged: dict[str, object] = {}
    for mark in reversed(marks):
        markers.parse(item.nodeid, mark.args, mark.kwargs)
        merged.update(mark.kwargs)
    return markers.parse(item.nodeid, (), merged)


def check_spelling(item: pytest.Item) -> None:
    """Refuse a marker that nobody has registered and whose name is almost this plugin's.

    Raises:
        MarkerError: The test has one.
    """
    for mark in item.iter_markers():
        if mark.name != markers.NAME and markers.is_similar(mark.name):
            lines: list[str] = item.config.getini("markers")
            if mark.name not in {line.partition(":")[0].partition("(")[0].strip() for line in lines}:
                raise MarkerError.misspelt(item.nodeid, mark.name)


def marker_errors(items: Iterable[pytest.Item]) -> list[MarkerError]:
    """Return the errors in the markers of *items*, each text once."""
    errors: dict[str, MarkerError] = {}
    for item in items:
        try:
            check_spelling(item)
            mark_of(item)
        except MarkerError as error:
            errors.setdefault(str(error), error)
    return list(errors.values())


def needs_database(item: pytest.Item, modules: Iterable[str]) -> bool:
    """Whether the test has the marker, asks for a fixture of this plugin, or runs after the import of *modules*.

    As good as these modules is what the project's own ``chatdify_db_metadata`` takes the tables from.
    """
    return (
        any(name in sys.modules for name in modules)
        or _are_tables_loaded(item)
        or item.get_closest_marker(markers.NAME) is not None
        or any(_is_ours(definitions) for definitions in _used(item).values())
    )


def defines(fixturedef: pytest.FixtureDef[Any]) -> bool:
    """Whether this plugin defines the fixture, for the use of tests."""
    return _module(fixturedef).startswith(_PACKAGE) and not fixturedef.argname.startswith(_INTERNAL)


def is_local(fixturedef: pytest.FixtureDef[Any], config: pytest.Config) -> bool:
    """Whether the project defines the fixture, in a conftest, a test module or what they import; not a plugin."""
    plugins = {
        module.__name__.partition(".")[0]
        for name, module in config.pluginmanager.list_name_plugin()
        if isinstance(module, ModuleType) and not name.endswith("conftest.py")
    }
    return _module(fixturedef).partition(".")[0] not in plugins


def is_default(request: pytest.FixtureRequest, name: str) -> bool:
    """Whether the fixture *name* of this plugin is what *request* would get, and no override of the project."""
    definitions = request._fixturemanager.getfixturedefs(name, request.node)
    return definitions is not None and _module(definitions[-1]).startswith(_PACKAGE)


def check_rivals(item: pytest.Item) -> None:
    """Refuse a test whose ``session`` could be this plugin's or another plugin's.

    Raises:
        FixtureError: Two plugins define the fixture and no conftest or test module decides between them.
    """
    used = _used(item)
    for name in _CONTESTED:
        definitions = used.get(name, ())
        # Below the root of the run only conftests and test modules define fixtures, whatever package they belong to.
        if len(definitions) < 2 or definitions[-1].baseid or is_local(definitions[-1], item.config):
            continue
        modules = list(dict.fromkeys(_module(each) for each in definitions if not is_local(each, item.config)))
        if len(modules) > 1 and any(module.startswith(_PACKAGE) for module in modules):
            raise FixtureError.ambiguous(item.nodeid, name, modules)


def _used(item: pytest.Item) -> dict[str, Sequence[pytest.FixtureDef[Any]]]:
    """Return the definitions of the fixtures that the test asks for, each name's winner last."""
    info = getattr(item, "_fixtureinfo", None)
    return {} if info is None else info.name2fixturedefs


def _is_ours(definitions: Sequence[pytest.FixtureDef[Any]]) -> bool:
    for definition in reversed(definitions):
        if defines(definition):
            return True
        # An override that asks for the fixture it overrides leads on to the next definition.
        if definition.argname not in definition.argnames:
            return False
    return False


def _are_tables_loaded(item: pytest.Item) -> bool:
    """Whether an override of the fixture ``chatdify_db_metadata`` names tables that have been imported.

    It is read and not called: calling it would import the tables for tests that have nothing to do with them.
    """
    sqlalchemy = sys.modules.get("sqlalchemy")
    if sqlalchemy is None:
        return False
    definitions = item.session._fixturemanager.getfixturedefs("chatdify_db_metadata", item)
    if not definitions or _module(definitions[-1]).startswith(_PACKAGE):
        return False
    function = inspect.unwrap(definitions[-1].func)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    names = {*code.co_names, *(each for each in code.co_consts if isinstance(each, str))}
    named = [value for name in names for value in (function.__globals__.get(name), sys.modules.get(name))]
    held = [each for value in named for each in (vars(value).values() if isinstance(value, ModuleType) else [value])]
    return any(_declares_tables(each, sqlalchemy.MetaData) for each in held)


def _declares_tables(value: object, metadata: type) -> bool:
    """Whether *value* is a ``MetaData``, a declarative base or a model."""
    # Asked of the type: isinstance() looks at __class__, which makes a proxy, of a Celery task for instance, load.
    kind = type(value)
    is_declarative = issubclass(kind, type) and isinstance(getattr(value, "metadata", None), metadata)
    return is_declarative or issubclass(kind, metadata)


def _module(fixturedef: pytest.FixtureDef[Any]) -> str:
    return getattr(fixturedef.func, "__module__", None) or ""

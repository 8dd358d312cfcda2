"""Dependencies point one way. Each module is in one room, and imports from its own room or the rooms above it."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

from tests.imports import imports_of, inner_imports_of, known_to, modules, outer_imports_of

_P: Final = "pytest_chatdify_db"

# The production layer, top to bottom.
_LAYER: Final = {
    "words of the layer": tuple(f"app.db.{name}" for name in ("errors", "parameters", "urls", "drivers")),
    "settings of the layer": ("app.config",),
    "parts of the layer": tuple(
        f"app.db.{name}" for name in ("base", "connecting", "dependencies", "guard", "hooks", "ping", "pools")
    ),
    "engines": ("app.db.engines",),
    "sessions": ("app.db.session", "app.db.legacy"),
    "utilities": ("app.db.utils",),
    "doors of the layer": ("app.db", "app.database"),
}
# The plugin, top to bottom. It stands below the layer: fixtures use production's own sessions.
_PLUGIN: Final = {
    "words": tuple(f"{_P}.{name}" for name in ("errors", "mistakes", "mistakes.*", "naming", "settings", "markers")),
    "protocol": (f"{_P}.postgres", f"{_P}.postgres.*"),
    "sandbox": (f"{_P}.sandbox", f"{_P}.sandbox.*"),
    "servers": (f"{_P}.traces", f"{_P}.servers", f"{_P}.servers.*"),
    "ways to the sandbox": tuple(f"{_P}.{name}" for name in ("redirect", "application", "scopes", "unix_socket")),
    "databases": (f"{_P}.databases", f"{_P}.databases.*"),
    "contents": (f"{_P}.contents", f"{_P}.contents.*"),
    "tracing": (f"{_P}.tracing", f"{_P}.tracing.*"),
    "course of a run": tuple(f"{_P}.{name}" for name in ("startup", "running", "provisioning", "lifecycle")),
    "pytest shell": (
        *(f"{_P}.{name}" for name in ("items", "state", "options", "reporting", "xdist", "entry")),
        *(f"{_P}.{name}" for name in ("explanations", "guards", "doctor", "lifetimes", "showing", "tracebacks")),
        f"{_P}.fixtures",
        f"{_P}.fixtures.*",
    ),
    "surface": (f"{_P}.plugin", _P),
}
_CORE: Final = ("words", "protocol", "sandbox")
_OF_PYTEST: Final = ("pytest shell", "surface")
ROOMS: Final = {**_LAYER, **_PLUGIN}

# Modules that think and do no I/O: they can be tested with values in memory.
PURE: Final = (
    *_PLUGIN["words"],
    *(f"{_P}.postgres.{name}" for name in ("address", "auth", "wire")),
    f"{_P}.sandbox.*",
    *_LAYER["words of the layer"],
)
SHELL: Final = tuple(
    f"{_P}.sandbox.{name}" for name in ("flag", "handle", "host", "opening", "sockets", "spool", "__main__")
)
IO: Final = frozenset(
    "asyncio fcntl http io multiprocessing os pathlib select selectors signal socket ssl subprocess tempfile threading "
    "time".split()
)
IO_ALLOWED: Final = {(f"{_P}.postgres.auth", "os")}  # random bytes for a log-in


# Modules that are run, not imported.
PROGRAMS: Final = ("__main__", "alembic_program")


def _fits(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


EVERY_MODULE: Final = sorted(modules())
PURE_MODULES: Final = [module for module in EVERY_MODULE if _fits(module, PURE) and module not in SHELL]


def rooms_of(module: str) -> list[str]:
    """Return the rooms whose patterns fit *module*."""
    return [room for room, patterns in ROOMS.items() if _fits(module, patterns)]


def _height(module: str) -> int:
    """Return the position of the module's room; a module without one counts as the top, and fails its own test."""
    return max((list(ROOMS).index(room) for room in rooms_of(module)), default=0)


@pytest.mark.parametrize("module", EVERY_MODULE)
def test_a_module_is_in_one_room(module: str) -> None:
    """A new module is given its place in the order, here, before it is used."""
    assert len(rooms_of(module)) == 1


@pytest.mark.parametrize("module", EVERY_MODULE)
def test_imports_point_upwards(module: str) -> None:
    """A module imports from its own room or from rooms above it."""
    own = _height(module)
    below = {name: rooms_of(name) for name in inner_imports_of(module) if _height(name) > own}

    assert below == {}


def test_there_is_no_cycle() -> None:
    """Within a room too, the modules can be read in an order in which each knows only earlier ones, types included."""
    graph = {module: known_to(module) for module in modules()}

    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_nothing_imports_the_plugin_module() -> None:
    """The module of hooks is pytest's alone; the package loads it by name where a user named the package."""
    assert [module for module in modules() if f"{_P}.plugin" in imports_of(module)] == []


@pytest.mark.parametrize("module", [module for module in EVERY_MODULE if module.split(".")[0] == "app"])
def test_production_knows_no_tests(module: str) -> None:
    """The production layer imports neither pytest nor the plugin."""
    assert {name.split(".")[0] for name in imports_of(module)}.isdisjoint({"pytest", "pytest_asyncio", _P})


@pytest.mark.parametrize("room", _CORE)
def test_the_core_needs_the_standard_library_alone(room: str) -> None:
    """No pytest, no SQLAlchemy: the sandbox starts in milliseconds, in an interpreter without site-packages."""
    needed = {
        name
        for module in modules()
        if _fits(module, ROOMS[room])
        for name in outer_imports_of(module)
        if name.split(".")[0] not in sys.stdlib_module_names
    }

    assert needed == set()


@pytest.mark.parametrize("room", [room for room in _PLUGIN if room not in {*_CORE, *_OF_PYTEST}])
def test_only_the_shell_knows_pytest(room: str) -> None:
    """What starts servers and steers a run can be used, and tested, without pytest."""
    users = [module for module in modules() if _fits(module, ROOMS[room]) and "pytest" in imports_of(module)]

    assert users == []


@pytest.mark.parametrize("module", PURE_MODULES)
def test_pure_modules_do_no_io(module: str) -> None:
    """Code that thinks does no I/O."""
    used = {(module, name) for name in (outer.split(".")[0] for outer in outer_imports_of(module)) if name in IO}

    assert used <= IO_ALLOWED


@pytest.mark.parametrize("module", [name for name in EVERY_MODULE if name.split(".")[-1] not in PROGRAMS])
def test_defaults_are_those_of_python_3_11(module: str) -> None:
    """Before Python 3.12 a mapping proxy cannot be hashed, so a dataclass does not take it for a default."""
    found = [value for value in vars(importlib.import_module(module)).values() if isinstance(value, type)]
    fields = [each for kind in found if dataclasses.is_dataclass(kind) for each in dataclasses.fields(kind)]

    assert [each.name for each in fields if isinstance(each.default, MappingProxyType)] == []


#: What a tool of style or types is told to let pass in a line, and why.
_IGNORED: Final = re.compile(r"# (?:noqa|type: ignore|pragma: no)(.*)")
_REASON: Final = re.compile(r"(?:: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)* - |\[[a-z, -]+\]  # | cover - )\S")


@pytest.mark.parametrize("folder", ["app", "benchmarks", "examples", _P, "tests"])
def test_an_exception_has_its_reason(folder: str) -> None:
    """Whatever ruff or mypy is told to let pass says which rule that is, and why."""
    files = [path for path in (Path(__file__).parents[1] / folder).rglob("*.py") if path != Path(__file__)]
    lines = [(path.name, line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    ignored = [(name, found[1]) for name, line in lines if (found := _IGNORED.search(line)) is not None]

    assert [(name, rest) for name, rest in ignored if not _REASON.match(rest)] == []

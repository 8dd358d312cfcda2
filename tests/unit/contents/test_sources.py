"""A function's description changes when the function would do something else, and not otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from pytest_chatdify_db.contents import sources

UNKNOWN = "unknown"

HELPER = "VALUE = 1\ndef help(): return VALUE\nclass Kind: ..."
SEED = "import planted_helper\nfrom planted_helper import Kind, help\ndef seed(session): help()"


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Return what writes a module of the project and imports it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        return __import__(name)

    yield write
    for name in [name for name in sys.modules if name.startswith("planted_")]:
        del sys.modules[name]


def describe(function: Callable[..., object]) -> list[str]:
    """Describe a function."""
    return sources.describe(function, UNKNOWN)


def test_equal_texts_for_equal_functions(plant: Callable[[str, str], ModuleType]) -> None:
    """The description holds no address, and no order that differs from run to run."""
    plant("planted_helper", HELPER)

    assert describe(plant("planted_seed", SEED).seed) == describe(plant("planted_seed", SEED).seed)


@pytest.mark.parametrize("changed", ["planted_seed", "planted_helper"])
def test_code_that_can_be_reached_counts(plant: Callable[[str, str], ModuleType], changed: str) -> None:
    """The function's own module, and those it imports of the project."""
    plant("planted_helper", HELPER)
    before = describe(plant("planted_seed", SEED).seed)
    plant("planted_helper", HELPER + ("\n# changed" if changed == "planted_helper" else ""))
    after = describe(plant("planted_seed", SEED + ("\n# changed" if changed == "planted_seed" else "")).seed)

    assert before != after
    assert UNKNOWN not in before


@pytest.mark.parametrize(
    "imports",
    [
        "from planted_rows import ROWS",
        "from planted_rows import (  # those of the project, all\n    NAMES,\n    ROWS,\n)",
        "from planted_rows import *",
        "import planted_rows as rows; ROWS = rows.ROWS; del rows",
        "import sys; from planted_rows import ROWS",
        "def rows():\n    from planted_rows import ROWS",
        "TABLE = dict(rows=__import__('planted_rows').ROWS)\nif not TABLE: import planted_rows",
    ],
)
def test_a_module_of_constants_counts(plant: Callable[[str, str], ModuleType], imports: str) -> None:
    """Its values are of no type that names it; the import does."""
    plant("planted_rows", "NAMES = ROWS = ['one']")
    before = describe(plant("planted_seed", f"{imports}\ndef seed(session): ...").seed)
    plant("planted_rows", "NAMES = ROWS = ['two']")
    after = describe(plant("planted_seed", f"{imports}\ndef seed(session): ...").seed)

    assert before != after


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("planted_package.seeds", "from . import rows; ROWS = rows.ROWS; del rows"),
        ("planted_package.seeds", "from .rows import ROWS"),
        ("planted_package.seeds", "from planted_package import (  # one\n    rows,\n); ROWS = rows.ROWS; del rows"),
        ("planted_package.deep.seeds", "from ..rows import ROWS"),
        ("planted_package", "from .rows import ROWS; del rows"),
    ],
)
def test_relative_imports_count(
    tmp_path: Path, plant: Callable[[str, str], ModuleType], module: str, imports: str
) -> None:
    """From the package itself, from a module of it, and from one further down."""
    (tmp_path / "planted_package/deep").mkdir(parents=True)
    seed = f"{imports}\ndef seed(session): ..."
    name = module.replace(".", "/")
    files = {"planted_package/__init__": "", "planted_package/deep/__init__": "", "planted_package/rows": "ROWS = 1"}
    files[f"{name}/__init__" if f"{name}/__init__" in files else name] = seed
    for path, text in files.items():
        (tmp_path / f"{path}.py").write_text(text)
    function = import_module(module).seed
    before = describe(function)
    (tmp_path / "planted_package/rows.py").write_text("ROWS = 2")

    assert describe(function) != before
    assert UNKNOWN not in before


def test_a_value_that_the_import_made_counts(plant: Callable[[str, str], ModuleType], tmp_path: Path) -> None:
    """It was read from a file, or from the environment, before anybody watched."""
    text = (
        "import json\nfrom pathlib import Path\nROWS = json.loads(Path(__file__).with_name('rows.json').read_text())\n"
    )
    text += "def seed(session): [session.add(row) for row in ROWS]"
    (tmp_path / "rows.json").write_text('[{"name": ["one"]}]')
    before = describe(plant("planted_seed", text).seed)
    (tmp_path / "rows.json").write_text('[{"name": ["two"]}]')

    assert describe(plant("planted_seed", text).seed) != before
    assert UNKNOWN not in before


def test_a_list_that_holds_itself_is_no_value(plant: Callable[[str, str], ModuleType]) -> None:
    """It ends, and is left out."""
    seed = plant("planted_seed", "ROWS = []\nROWS.append(ROWS)\ndef seed(session): return ROWS").seed

    assert UNKNOWN not in describe(seed)


def test_a_neighbour_does_not_count(plant: Callable[[str, str], ModuleType]) -> None:
    """A module that is not imported by those may change."""
    plant("planted_helper", HELPER)
    plant("planted_neighbour", "x = 1")
    before = describe(plant("planted_seed", SEED).seed)
    plant("planted_neighbour", "x = 2")

    assert describe(plant("planted_seed", SEED).seed) == before


class Planter:
    """A seed that is an object."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, session: object) -> None:
        """Store nothing."""

    def method(self, session: object) -> None:
        """Store nothing."""


def _capturing(value: object) -> Callable[..., object]:
    return lambda session: value


def _by_default(value: object) -> Callable[..., object]:
    def seed(session: object, value: object = value, *, other: object = value) -> None: ...

    return seed


def _wrapped(value: object) -> Callable[..., object]:
    @wraps(_by_default(value))
    def seed(session: object) -> None: ...

    return seed


@pytest.mark.parametrize(
    "make",
    [
        _capturing,
        _by_default,
        _wrapped,
        lambda value: partial(_capturing, value),
        lambda value: Planter([value]),
        lambda value: Planter([value]).method,
        lambda value: _capturing(_capturing({"a": {value}})),
        lambda value: _capturing((1, [value])),
    ],
)
def test_captured_values_count(make: Callable[[str], Callable[..., object]]) -> None:
    """In a closure, a default, a partial, an object; nested in containers and functions."""
    assert describe(make("one")) == describe(make("one"))
    assert describe(make("one")) != describe(make("two"))


def test_what_cannot_be_described_is_the_runs_own() -> None:
    """An object of which nothing is known could be anything: the text is the one that fits this run alone."""
    assert UNKNOWN in describe(_capturing(object()))


def test_classes_and_modules_are_their_code(plant: Callable[[str, str], ModuleType]) -> None:
    """A model that a seed has captured changes with its module."""
    before = [
        describe(_capturing(value)) for value in (plant("planted_helper", HELPER).Kind, sys.modules["planted_helper"])
    ]
    plant("planted_helper", HELPER + "\n# changed")
    after = [
        describe(_capturing(value)) for value in (sys.modules["planted_helper"].Kind, sys.modules["planted_helper"])
    ]

    assert all(one != two for one, two in zip(before, after, strict=True))


def test_a_circle_ends() -> None:
    """A list that holds itself, and a function that refers to itself."""
    circle: list[object] = []
    circle.append(circle)

    def seed(session: object) -> object:
        return circle, seed

    assert describe(seed) == describe(seed)


def test_a_variable_that_is_not_set_yet() -> None:
    """It has no value to describe."""

    def seed(session: object) -> object:
        return later

    texts = describe(seed)
    later = 1

    assert texts != describe(seed)


def test_code_in_no_file() -> None:
    """Code made from a string is described by what it was compiled to."""
    namespace: dict[str, Callable[..., object]] = {}
    texts = []
    for number in (1, 1, 2):
        exec(f"def seed(session): return [{number} for _ in 'ab'], (lambda: {number})", namespace)
        texts.append(describe(namespace["seed"]))

    assert texts[0] == texts[1] != texts[2]

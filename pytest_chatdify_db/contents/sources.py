"""What a function depends on, as text: its code, the project's modules it can reach, and the values it has captured.

Equal texts have to mean equal behaviour. Where that cannot be told, the text is one that fits this run alone, so that
nothing made in an earlier run is taken for it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from pytest_chatdify_db import traces

_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), Path)

#: Deeper than data is nested; a list may hold itself.
_DEEPEST: Final = 20

_IMPORT: Final = re.compile(
    r"^(?:.*[;:])?[ \t]*"
    r"(?:from[ \t]+(?P<origin>[.\w]+)[ \t]+import[ \t]*(?P<names>\([^)]*\)|[^\n;#]+)"
    r"|import[ \t]+(?P<modules>[^\n;#]+))",
    re.MULTILINE,
)
_COMMENT: Final = re.compile(r"#.*")


def describe(function: Callable[..., object], unknown: str) -> list[str]:
    """Return texts that change when *function* would do something else.

    Args:
        function: A function, method, `functools.partial`, or an object that can be called.
        unknown: What stands for a value that cannot be described.
    """
    reader = _Reader(unknown)
    reader.read(function)
    return [*reader.texts, *(f"{name}\n{_text(path, unknown)}" for name, path in sorted(reader.modules))]


class _Reader:
    def __init__(self, unknown: str) -> None:
        self.texts: list[str] = []
        self.modules: set[tuple[str, str]] = set()
        self._unknown = unknown
        # The objects themselves, too: the address of one that is gone is soon another's.
        self._seen: dict[int, object] = {}

    def read(self, value: Any) -> None:
        """Take down *value*."""
        if isinstance(value, _PLAIN):
            self.texts.append(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self.texts.append("again")
        else:
            self._seen[id(value)] = value
            self._read_compound(value)

    def _read_compound(self, value: Any) -> None:
        if isinstance(value, partial):
            self._read_all("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            self._read_all("method", (value.__func__, value.__self__))
        elif isinstance(value, FunctionType):
            self._read_function(value)
        elif isinstance(value, type):
            self.texts.append(f"class {value.__module__}.{value.__qualname__}")
            self._reach(value.__module__)
        elif isinstance(value, ModuleType):
            self.texts.append(f"module {value.__name__}")
            self._reach(value.__name__)
        elif isinstance(value, dict):
            self._read_all("dict", (part for pair in value.items() for part in pair))
        elif isinstance(value, list | tuple):
            self._read_all(type(value).__name__, value)
        elif isinstance(value, set | frozenset):
            self._read_all("set", sorted(value, key=repr))
        elif hasattr(value, "__dict__") and _is_of_project(type(value).__module__):
            self._read_all("object", (type(value), vars(value)))
        else:
            self.texts.append(self._unknown)

    def _read_all(self, kind: str, values: Iterable[Any]) -> None:
        self.texts.append(f"{kind} of")
        for value in values:
            self.read(value)
        self.texts.append("end")

    def _read_function(self, function: FunctionType) -> None:
        self.texts.append(f"function {function.__module__}.{function.__qualname__}")
        code = function.__code__
        if not Path(code.co_filename).is_file():
            self._read_code(code)
        elif traces.is_of_project(code.co_filename):
            self.modules.add((function.__module__, code.co_filename))
            self._reach(function.__module__)
        captured = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        self._read_all("captured", (captured, function.__defaults__, function.__kwdefaults__ or {}))
        self._read_all("globals", _plain_globals(function))
        wrapped = inspect.unwrap(function)
        if wrapped is not function:
            self.read(wrapped)

    def _read_code(self, code: CodeType) -> None:
        self.texts.append(code.co_code.hex())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._read_code(constant)
            else:
                self.texts.append(repr(constant))

    def _reach(self, name: str) -> None:
        """Add the module *name*, and all of the project's that it and they have imported."""
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None)
        if module is None or path is None or ((name, path) in self.modules and id(module) in self._seen):
            return
        if traces.is_of_project(path):
            self._seen[id(module)] = module
            self.modules.add((name, path))
            for other in (*_modules_in(module), *_modules_named_in(module)):
                self._reach(other)


def _is_of_project(name: str) -> bool:
    return traces.is_of_project(getattr(sys.modules.get(name), "__file__", None) or "")


def _modules_in(module: ModuleType) -> Iterator[str]:
    """Yield the names of the modules that the values of *module* are, or come from."""
    for value in list(vars(module).values()):
        # Asked for its type alone: some of what modules hold are proxies that would do work.
        kind = type(value)
        if issubclass(kind, ModuleType):
            yield value.__name__
        elif issubclass(kind, FunctionType | type):
            yield value.__module__
        else:
            yield kind.__module__


def _modules_named_in(module: ModuleType) -> Iterator[str]:
    """Yield the names of the modules that the text of *module* imports: of a constant nothing else tells the origin.

    A text that only looks like an import names a module too many, which does no harm.
    """
    package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
    for match in _IMPORT.finditer(_text(module.__file__ or "", "")):
        if match["modules"]:
            yield from (name.split()[0] for name in match["modules"].split(",") if name.strip())
            continue
        origin = match["origin"].lstrip(".")
        if level := len(match["origin"]) - len(origin):
            origin = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - level + 1], origin]))
        yield origin
        names = _COMMENT.sub("", match["names"]).strip("()").split(",")
        yield from (f"{origin}.{name.split()[0]}" for name in names if name.strip())


def _plain_globals(function: FunctionType) -> list[object]:
    """Return the plain values of the module that *function* names: some were made when it was imported."""
    names = sorted({name for code in _codes(function.__code__) for name in code.co_names})
    found = [(name, function.__globals__[name]) for name in names if name in function.__globals__]
    return [pair for pair in found if _is_plain(pair[1])]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_plain(value: object, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return depth < _DEEPEST and all(_is_plain(part, depth + 1) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return depth < _DEEPEST and all(_is_plain(part, depth + 1) for part in value)
    return isinstance(value, _PLAIN)


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _text(path: str, unknown: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeError):
        return unknown

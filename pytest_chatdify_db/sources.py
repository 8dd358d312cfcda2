"""What a function depends on, as text: its code, the project's modules it can reach, and the values it has captured.

Equal texts have to mean equal behaviour. Where that cannot be told, the text is one that fits this run alone, so that
nothing made in an earlier run is taken for it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from pytest_chatdify_db import traces

_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), Path)


def describe(function: Callable[..., object], unknown: str) -> list[str]:
    """Return texts that change when *function* would do something else.

    Args:
        function: A function, method, `functools.partial`, or an object that can be called.
        unknown: What stands for a value that cannot be described.
    """
    reader = _Reader(unknown)
    reader.read(function)
    modules = sorted(reader.modules)
    return [*reader.texts, *(f"{name}\n{_text(path, unknown)}" for name, path in modules)]


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
            for other in _modules_in(module):
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

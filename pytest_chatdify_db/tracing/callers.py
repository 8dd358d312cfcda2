"""The line of the project that caused a statement: the innermost frame that is neither a library's nor this plugin's.

SQLAlchemy runs asyncio statements in a greenlet of its own, whose frames end where it begins; the walk goes on in the
greenlet that waits for it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from pytest_chatdify_db.tracing.statements import Line

_LIBRARIES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PLUGIN: Final = str(Path(__file__).parents[1]) + os.sep
#: Where a request begins: lines further out have called the application, not executed what it executes.
_BORDER: Final = str(Path(__file__).with_name("asgi.py"))
#: Modules of the production layer: what they execute is on behalf of whoever called them.
_LAYER: Final = ("app.db", "app.database", "app.config")


class Callers:
    """Finds lines of the project.

    Args:
        root: The directory to which paths are relative.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shown: dict[str, str | None] = {_BORDER: ""}
        self._lines: dict[tuple[CodeType, int], Line] = {}
        self._skipped = (
            "<",
            _PLUGIN,
            # With an environment inside the project, the command `pytest` lies there too.
            *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "scripts")),
        )

    def find(self, depth: int = 1) -> Line | None:
        """Return the line of the project that the caller was called by; None if there is none.

        Args:
            depth: How many frames above this one to begin at.
        """
        # Called for every statement: a loop without a generator, and no line made twice.
        shown = self._shown
        frame: FrameType | None = sys._getframe(depth)
        greenlet: Any = None
        while True:
            while frame is not None:
                file = frame.f_code.co_filename
                path = shown[file] if file in shown else self._classify(file)
                if path is not None:
                    return self._line(path, frame) if path else None
                frame = frame.f_back
            greenlet = _current_greenlet() if greenlet is None else greenlet.parent
            if greenlet is None or greenlet.parent is None:
                return None
            frame = greenlet.parent.gr_frame

    def knows(self, file: str) -> bool:
        """Return whether *file* is of the project."""
        return bool(self._classify(file))

    def stack(self, frame: FrameType | None, most: int) -> list[Line]:
        """Return at most *most* lines of the project that *frame*, of any thread, was called by, innermost first."""
        lines: list[Line] = []
        while frame is not None and len(lines) < most:
            path = self._classify(frame.f_code.co_filename)
            if path is not None:
                lines.append(Line(path, frame.f_lineno, frame.f_code.co_name))
            frame = frame.f_back
        return lines

    def last_of(self, trace: TracebackType | None, function: str | None = None) -> Line | None:
        """Return the innermost line of the project in a traceback; None if there is none.

        Args:
            trace: The traceback.
            function: The name of the function it must be in; None for any.
        """
        found = [line for line in self._lines_in(trace) if function in {None, line.function}]
        return found[-1] if found else None

    def first_of(self, trace: TracebackType | None) -> Line | None:
        """Return the outermost line of the project in a traceback; None if there is none."""
        return next(self._lines_in(trace), None)

    def passed(self, trace: TracebackType | None) -> frozenset[tuple[str, str]]:
        """Return the functions, by file and name, that an error came through before it was in the outermost one."""
        return frozenset((line.file, line.function) for line in islice(self._lines_in(trace), 1, None))

    def _lines_in(self, trace: TracebackType | None) -> Iterator[Line]:
        while trace is not None:
            code = trace.tb_frame.f_code
            path = self._classify(code.co_filename)
            if path is not None:
                yield Line(path, trace.tb_lineno, code.co_name)
            trace = trace.tb_next

    def _line(self, path: str, frame: FrameType) -> Line:
        place = frame.f_code, frame.f_lineno
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = Line(path, frame.f_lineno, frame.f_code.co_name)
        return line

    def _classify(self, file: str) -> str | None:
        """Return how the path of *file* is shown, None for a file that is not of the project."""
        is_foreign = file.startswith((*self._skipped, *_layer_paths())) or any(part in file for part in _LIBRARIES)
        shown = None if is_foreign else _relative(file, self._root)
        self._shown.setdefault(file, shown)
        return shown


def _current_greenlet() -> Any:
    getcurrent: Callable[[], Any] | None = getattr(sys.modules.get("greenlet"), "getcurrent", None)
    return None if getcurrent is None else getcurrent()


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file


def _layer_paths() -> Iterator[str]:
    if not hasattr(sys.modules.get("app.db.session"), "LazySession"):
        return  # the project's package `app` is another one
    for name in _LAYER:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            yield str(Path(file).parent) + os.sep if Path(file).name == "__init__.py" else file

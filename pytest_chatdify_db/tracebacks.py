"""Tracebacks of what SQLAlchemy and ``app.db`` raise: the project's lines, not forty of libraries between them.

What such an error is about stands in its text and in the SQL section. ``--full-trace`` and ``--pdb`` keep every frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Final

import pytest

from pytest_chatdify_db.tracing.callers import Callers

#: The modules and the bases of what they raise; the warnings where a project's filter makes them errors.
_BASES: Final = (
    ("sqlalchemy.exc", "SQLAlchemyError"),
    ("sqlalchemy.exc", "SAWarning"),
    ("sqlalchemy.exc", "SADeprecationWarning"),
    ("app.db.errors", "DatabaseError"),
)


def shorten(excinfo: pytest.ExceptionInfo[BaseException], config: pytest.Config) -> None:
    """Leave the project's lines in the tracebacks of those errors of *excinfo* that are SQLAlchemy's or the layer's."""
    found = [getattr(sys.modules.get(module), name, None) for module, name in _BASES]
    kinds = tuple(kind for kind in found if isinstance(kind, type))
    if not kinds or config.getoption("fulltrace", False) or config.getoption("usepdb", False):
        return
    callers = Callers(config.invocation_params.dir)
    for error in [each for each in _chain(excinfo.value) if isinstance(each, kinds)]:
        kept = _kept(error.__traceback__, callers)
        if error is not excinfo.value:
            error.with_traceback(kept)
        elif kept is not None:
            # pytest has the head of this traceback, a frame of its own, and reads on from there.
            excinfo.tb.tb_next = kept
        if getattr(error, "orig", None) is not None:
            # The driver's error: its text is a part of SQLAlchemy's.
            error.__cause__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what pytest shows before it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _kept(trace: TracebackType | None, callers: Callers) -> TracebackType | None:
    """Return a copy of *trace* with the project's frames alone; None if it has none."""
    frames = []
    while trace is not None:
        if callers.knows(trace.tb_frame.f_code.co_filename):
            frames.append(trace)
        trace = trace.tb_next
    kept = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept

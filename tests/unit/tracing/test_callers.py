"""The line of the project behind a statement."""

from __future__ import annotations

import asyncio
import contextlib
import sysconfig
from pathlib import Path

from sqlalchemy.util import greenlet_spawn

from pytest_chatdify_db.tracing.callers import Callers
from pytest_chatdify_db.tracing.statements import Line

HERE = Path(__file__)


def test_own_line() -> None:
    """The line that calls, relative to the root of the run."""
    line = Callers(HERE.parent).find()

    assert line is not None
    assert (line.file, line.function) == (HERE.name, "test_own_line")


def test_outside_of_the_root() -> None:
    """A file that is not below the root has its whole path."""
    line = Callers(HERE.parent / "elsewhere").find()

    assert line is not None
    assert line.file == str(HERE)


def test_libraries_are_passed_over() -> None:
    """A line of the standard library is none of the project, nor is one without a file."""
    callers = Callers(HERE.parent)
    found: list[Line | None] = []
    with contextlib.ExitStack() as stack:
        stack.callback(eval, "add(find(1))", {"add": found.append, "find": callers.find})

    assert found[0] is not None
    assert found[0].function == "test_libraries_are_passed_over"


def test_the_command_is_passed_over() -> None:
    """The command `pytest` of an environment inside the project is none of its lines."""
    command = Path(sysconfig.get_path("scripts"), "pytest")

    assert not Callers(command.parents[2]).knows(str(command))


def test_through_a_greenlet() -> None:
    """A statement of an asyncio engine is executed in a greenlet of its own; the line is that of who awaits it."""
    callers = Callers(HERE.parent)

    async def endpoint() -> Line | None:
        # `find` itself is what the greenlet runs: nothing of the project is below it.
        return await greenlet_spawn(callers.find, 0)

    line = asyncio.run(endpoint())

    assert line is not None
    assert line.function == "endpoint"


def test_what_an_error_came_through() -> None:
    """The functions between the outermost one, which is the test's own, and the library's that raised it."""

    def convert() -> int:
        return int("x")

    callers, trace = Callers(HERE.parent), None
    try:
        convert()
    except ValueError as error:
        trace = error.__traceback__

    assert callers.passed(trace) == {(HERE.name, "convert")}
    assert callers.passed(None) == frozenset()


def test_traceback() -> None:
    """Of a traceback the innermost line of the project, or of one of its functions."""
    callers = Callers(HERE.parent)
    try:
        int("x")
    except ValueError as error:
        trace = error.__traceback__

    found = callers.last_of(trace)

    assert found is not None
    assert found.function == "test_traceback"
    assert callers.first_of(trace) == found
    assert callers.first_of(None) is None
    assert callers.last_of(trace, "<module>") is None
    assert callers.last_of(None) is None

"""Whose rows live how long: a stack of frames in which each test's and each fixture's writes are undone at its end.

A frame is a part of the sandbox's transaction; undoing one undoes all above it. So the rule of this module: a frame
stands above every frame that outlives it. A fixture whose set-up writes nothing gets no frame. A frame in which nothing
was written can be moved freely. One with rows cannot: where it stands in the way, its fixture is finished first, and
pytest sets it up again when it is next needed; if the running test uses it already, that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pytest_chatdify_db.mistakes import LateFixture

ScopeName = Literal["session", "package", "module", "class", "function"]

_NARROWNESS: Final[dict[str, int]] = {"session": 0, "package": 1, "module": 2, "class": 3, "function": 4}


class Frames(Protocol):
    """The part of the sandbox that this module uses."""

    def push(self, name: str) -> None:
        """Open a frame."""

    def pop(self) -> object:
        """Undo all that was written since the matching push, and report on it."""

    @property
    def wrote(self) -> bool:
        """Whether anything was written in the top frame."""


@dataclass(slots=True, eq=False)
class Frame:
    """The writes of one test or fixture.

    Args:
        name: The test's id or the fixture's name.
        scope: How long it lives; a test's is ``function``.
        finish: Finishes the fixture, if it can be finished before its time.
        is_settled: Whether it is a fixture whose set-up is done.
    """

    name: str
    scope: ScopeName
    finish: Callable[[], object] | None = None
    is_settled: bool = False

    def outlives(self, other: Frame) -> bool:
        """Whether this frame may stay below *other*."""
        return _NARROWNESS[self.scope] <= _NARROWNESS[other.scope]

    def __str__(self) -> str:
        """Return how messages call it."""
        return f"the fixture {self.name!r}" if self.finish else self.name


class FrameStack:
    """The frames of one sandbox, bottom first."""

    __slots__ = ("_frames", "_sandbox")

    def __init__(self, sandbox: Frames) -> None:
        self._sandbox = sandbox
        self._frames: list[Frame] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the open frames, bottom first."""
        return tuple(frame.name for frame in self._frames)

    def holds(self, frame: Frame) -> bool:
        """Whether *frame* is open."""
        return frame in self._frames

    def push(self, frame: Frame) -> None:
        """Open *frame* on top, for a test or for the tear-down of a fixture."""
        self._sandbox.push(frame.name)
        self._frames.append(frame)

    @contextmanager
    def setting_up(self, frame: Frame, *, is_in_use: Callable[[Frame], bool]) -> Iterator[None]:
        """Run the set-up of a fixture in *frame*, which stays open if the set-up wrote something.

        Args:
            frame: The fixture's new frame.
            is_in_use: Whether the running test has a fixture's value already, so that it must not be finished.

        Raises:
            LateFixture: Rows stand in the way that must stay.
        """
        aside = self._make_room(frame, is_in_use)
        self.push(frame)
        try:
            yield
        except BaseException:
            self.close(frame)
            raise
        else:
            frame.is_settled = True
            if self._frames[-1] is frame and not self._sandbox.wrote:
                self._pop()
        finally:
            while aside:
                self.push(aside.pop())

    def close(self, frame: Frame) -> object:
        """Undo *frame*, after finishing what stands above it; return the sandbox's report, None if it is not open."""
        if frame not in self._frames:
            return None
        aside: list[Frame] = []
        while (top := self._frames[-1]) is not frame:
            if top.is_settled:
                self._finish(top)
            elif self._sandbox.wrote:
                raise LateFixture.after_rows(frame.name, frame.scope, str(top))
            else:
                self._pop()
                aside.append(top)
        report = self._pop()
        while aside:
            self.push(aside.pop())
        return report

    def _make_room(self, frame: Frame, is_in_use: Callable[[Frame], bool]) -> list[Frame]:
        """Take away what must not be below *frame*; return the frames to put back above it, topmost first."""
        aside: list[Frame] = []
        while self._frames:
            top = self._frames[-1]
            verdict = _verdict(top, frame, wrote=top.is_settled or self._sandbox.wrote, in_use=is_in_use(top))
            if verdict == "stay":
                break
            if verdict == "refuse":
                while aside:
                    self.push(aside.pop())
                raise LateFixture.after_rows(frame.name, frame.scope, str(top))
            if verdict == "finish":
                self._finish(top)
            else:
                self._pop()
                aside.append(top)
        return aside

    def _finish(self, frame: Frame) -> None:
        if frame.finish is not None:
            frame.finish()
        if self._frames and self._frames[-1] is frame:
            self._pop()

    def _pop(self) -> object:
        self._frames.pop()
        return self._sandbox.pop()


def _verdict(top: Frame, new: Frame, *, wrote: bool, in_use: bool) -> Literal["stay", "aside", "finish", "refuse"]:
    if not wrote:
        # A test, or a fixture in the middle of its set-up that asks for another one.
        return "aside"
    if top.outlives(new):
        return "stay"
    return "finish" if top.is_settled and not in_use else "refuse"

"""Whose rows live how long: a stack of frames in which each test's and each fixture's writes are undone at its end.

A frame is a part of the sandbox's transaction; undoing one undoes all above it. So the rule of this module: no frame
outlives one below it. A fixture whose set-up writes nothing gets no frame, and a frame in which nothing was written
is moved out of the way. Where a longer-lived fixture has written above the rows of shorter-lived ones, all of them are
finished and it is set up again, below; pytest sets up the others when they are next needed. Those that the running test
uses already stay, and then the longer-lived one is finished together with them. Above the rows of the running test
itself it is refused, because it would be set up again for every test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pytest_chatdify_db.mistakes.fixtures import LateFixture

ScopeName = Literal["session", "package", "module", "class", "function"]

_NARROWNESS: Final[dict[str, int]] = {"session": 0, "package": 1, "module": 2, "class": 3, "function": 4}


class Frames(Protocol):
    """The part of the sandbox that this module uses."""

    def push(self, name: str) -> None:
        """Open a frame."""

    def pop(self, *, waits: bool = True) -> object:
        """Undo all that was written since the matching push, and report on it.

        Args:
            waits: Whether to wait until it is certain what has to be reported.
        """

    def merge(self) -> object:
        """Close the top frame, in which nothing was written: transactions begun in it go on, in the frame below."""

    def set_aside(self) -> None:
        """Close the top frame, in which nothing was written: transactions begun in it go on, and come back with it."""

    def put_back(self, name: str) -> None:
        """Open the frame again that was set aside last."""

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
    """The frames of one sandbox, bottom first.

    Attributes:
        last_report: What the sandbox reported when the last frame was undone.
    """

    __slots__ = ("_frames", "_sandbox", "last_report")

    def __init__(self, sandbox: Frames) -> None:
        self._sandbox = sandbox
        self.last_report: object = None
        self._frames: list[Frame] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the open frames, bottom first."""
        return tuple(frame.name for frame in self._frames)

    @property
    def fixtures(self) -> tuple[Frame, ...]:
        """The fixtures that have rows, bottom first."""
        return tuple(frame for frame in self._frames if frame.is_settled)

    def holds(self, frame: Frame) -> bool:
        """Whether *frame* is open."""
        return frame in self._frames

    def push(self, frame: Frame) -> None:
        """Open *frame* on top, for a test or for the tear-down of a fixture."""
        self._sandbox.push(frame.name)
        self._frames.append(frame)

    @contextmanager
    def setting_up(self, frame: Frame) -> Iterator[None]:
        """Run the set-up of a fixture in *frame*, which stays open if the set-up wrote something.

        Raises:
            LateFixture: It wrote, and what is below has rows that go earlier; its own rows are undone.
        """
        aside = self._set_aside()
        below = self._frames[-1] if self._frames else None
        self.push(frame)
        try:
            yield
            if self._frames[-1] is frame and not self._sandbox.wrote:
                self._frames.pop()
                self.last_report = self._sandbox.merge()  # what it has begun by reading outlives its set-up
            elif below is not None and not below.is_settled and not below.outlives(frame):
                raise LateFixture.after_rows(frame.name, frame.scope, str(below))  # noqa: TRY301 - undone just below
            frame.is_settled = True
        except BaseException:
            self.close(frame)
            raise
        finally:
            self._put_back(aside)

    def clear_way(self, frame: Frame, *, is_in_use: Callable[[Frame], bool]) -> bool:
        """Finish the fixture of *frame* and those below whose rows go earlier; return whether there were any.

        Args:
            frame: A fixture's frame whose set-up is done.
            is_in_use: Whether the running test has a fixture's value already, so that it must stay.
        """
        doomed: list[Frame] = []
        below = self._frames[: self._frames.index(frame)] if frame in self._frames else []
        for other in reversed(below):
            if not other.is_settled or other.outlives(frame) or is_in_use(other):
                break
            doomed.append(other)
        if doomed:
            for other in (frame, *doomed):
                self._finish(other)
        return bool(doomed)

    def close(self, frame: Frame, *, waits: bool = True) -> object:
        """Undo *frame*, after finishing what stands above it; return the sandbox's report, None if it is not open.

        Args:
            frame: What to undo.
            waits: Whether to wait until it is certain what has to be reported.
        """
        if frame not in self._frames:
            return None
        aside: list[Frame] = []
        while (top := self._frames[-1]) is not frame:
            if top.is_settled:
                self._finish(top)
            elif self._sandbox.wrote:
                raise LateFixture.after_rows(frame.name, frame.scope, str(top))
            else:
                self._lay_aside(aside)
        report = self._pop(waits=waits)
        self._put_back(aside)
        return report

    def _set_aside(self) -> list[Frame]:
        """Close the frames on top that may have rows later and have none yet; return them, topmost first."""
        aside: list[Frame] = []
        while self._frames and not self._frames[-1].is_settled and not self._sandbox.wrote:
            self._lay_aside(aside)
        return aside

    def _lay_aside(self, aside: list[Frame]) -> None:
        aside.append(self._frames.pop())
        self._sandbox.set_aside()

    def _put_back(self, aside: list[Frame]) -> None:
        while aside:
            frame = aside.pop()
            self._sandbox.put_back(frame.name)
            self._frames.append(frame)

    def _finish(self, frame: Frame) -> None:
        if frame.finish is not None:
            frame.finish()
        if self._frames and self._frames[-1] is frame:
            self._pop()

    def _pop(self, *, waits: bool = True) -> object:
        self._frames.pop()
        self.last_report = self._sandbox.pop(waits=waits)
        return self.last_report

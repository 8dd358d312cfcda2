"""The stack of frames, against a sandbox that keeps its rows in lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_chatdify_db.mistakes.fixtures import LateFixture
from pytest_chatdify_db.scopes import Frame, FrameStack, ScopeName


@dataclass
class Rows:
    """A sandbox: a list of rows for each open frame."""

    frames: list[list[str]] = field(default_factory=list)
    aside: int = 0

    def push(self, name: str) -> None:
        """Open a frame."""
        self.frames.append([])

    def pop(self, *, waits: bool = True) -> list[str]:
        """Undo the innermost frame."""
        return self.frames.pop()

    def merge(self) -> list[str]:
        """Close it, which must be empty."""
        assert not self.frames[-1]
        return self.frames.pop()

    def set_aside(self) -> None:
        """Close it for some time; it must be empty."""
        assert not self.frames[-1]
        self.frames.pop()
        self.aside += 1

    def put_back(self, name: str) -> None:
        """Open one again that was set aside."""
        self.aside -= 1
        assert self.aside >= 0
        self.push(name)

    @property
    def wrote(self) -> bool:
        """Whether it has rows."""
        return bool(self.frames[-1])

    def write(self, row: str) -> None:
        """Store a row."""
        self.frames[-1].append(row)

    @property
    def visible(self) -> list[str]:
        """What a query would find."""
        return [row for frame in self.frames for row in frame]


class Fixtures:
    """What pytest does with fixtures: set up once, finish, set up again when needed."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.stack = FrameStack(self.rows)
        self.live: dict[str, Frame] = {}
        self.set_ups: list[str] = []

    def use(self, name: str, scope: ScopeName, *, writes: bool = True, in_use: tuple[str, ...] = ()) -> None:
        """Ask for a fixture."""
        if name in self.live:
            return
        frame = Frame(name, scope, lambda: self.finish(name))
        with self.stack.setting_up(frame):
            self.set_ups.append(name)
            if writes:
                self.rows.write(name)
        self.live[name] = frame
        if self.stack.clear_way(frame, is_in_use=lambda other: other.name in in_use):
            self.use(name, scope, writes=writes, in_use=in_use)

    def finish(self, name: str) -> None:
        """Finish a fixture, if it is live."""
        if name in self.live:
            self.stack.close(self.live.pop(name))


@pytest.fixture
def fixtures() -> Fixtures:
    """Nothing set up yet."""
    return Fixtures()


def test_rows_go_with_their_fixture(fixtures: Fixtures) -> None:
    """A fixture's rows are there until it is finished."""
    fixtures.use("a", "session")
    fixtures.use("b", "class")

    assert fixtures.rows.visible == ["a", "b"]
    fixtures.finish("b")
    assert fixtures.rows.visible == ["a"]


def test_no_frame_without_rows(fixtures: Fixtures) -> None:
    """A fixture that writes nothing takes no place."""
    fixtures.use("a", "session", writes=False)

    assert fixtures.stack.names == ()


def test_wider_after_narrower(fixtures: Fixtures) -> None:
    """A wider fixture that wrote above a narrower one is set up again below, and the narrower one when next needed."""
    fixtures.use("narrow", "class")
    fixtures.use("wide", "session")

    assert fixtures.rows.visible == ["wide"]
    fixtures.use("narrow", "class")
    assert fixtures.rows.visible == ["wide", "narrow"]
    assert fixtures.set_ups == ["narrow", "wide", "wide", "narrow"]


def test_harmless_wider_fixture_disturbs_nothing(fixtures: Fixtures) -> None:
    """A wider fixture that writes nothing leaves the narrower ones alone."""
    fixtures.use("narrow", "class")
    fixtures.use("wide", "session", writes=False)

    assert fixtures.set_ups == ["narrow", "wide"]


def test_fixture_in_use_stays(fixtures: Fixtures) -> None:
    """A narrower fixture that the test uses stays, and takes the wider one with it at its end."""
    fixtures.use("narrow", "class")
    fixtures.use("wide", "session", in_use=("narrow",))

    assert fixtures.rows.visible == ["narrow", "wide"]
    fixtures.finish("narrow")
    assert fixtures.rows.visible == []
    assert not fixtures.live


def test_test_without_rows_is_moved(fixtures: Fixtures) -> None:
    """A test that has not written yet is put above the fixture it asks for."""
    test = Frame("test", "function")
    fixtures.stack.push(test)
    fixtures.use("wide", "session")
    fixtures.rows.write("of test")

    fixtures.stack.close(test)

    assert fixtures.rows.visible == ["wide"]


def test_test_with_rows_refuses(fixtures: Fixtures) -> None:
    """A wider fixture that writes above a test's rows is refused, its rows are undone, and the test's stay."""
    fixtures.stack.push(Frame("test_it.py::test_it", "function"))
    fixtures.rows.write("of test")

    with pytest.raises(LateFixture, match="the session-scoped fixture 'wide' is set up too late") as caught:
        fixtures.use("wide", "session")

    assert "test_it.py::test_it has written already" in str(caught.value)
    assert fixtures.rows.visible == ["of test"]
    fixtures.use("harmless", "session", writes=False)


def test_failed_set_up(fixtures: Fixtures) -> None:
    """What a set-up wrote before it failed is undone."""
    with pytest.raises(ZeroDivisionError), fixtures.stack.setting_up(Frame("a", "module")):
        fixtures.rows.write("half")
        raise ZeroDivisionError

    assert fixtures.stack.names == ()
    assert fixtures.rows.visible == []


def test_nested_set_up(fixtures: Fixtures) -> None:
    """A fixture asked for in the middle of another's set-up stands below it, if that has not written yet."""
    outer = Frame("outer", "module")
    with fixtures.stack.setting_up(outer):
        fixtures.use("inner", "module")
        fixtures.rows.write("of outer")

    assert fixtures.stack.names == ("inner", "outer")
    fixtures.stack.close(outer)
    assert fixtures.rows.visible == ["inner"]


def test_closing_what_is_not_open(fixtures: Fixtures) -> None:
    """A frame that never opened, or was closed before, is closed without effect."""
    assert fixtures.stack.close(Frame("a", "module")) is None


_SCOPES: list[ScopeName] = ["session", "module", "class"]
_STEP = st.tuples(st.sampled_from(["use", "use", "finish", "test"]), st.integers(0, 5), st.booleans())


@settings(deadline=None)
@given(steps=st.lists(_STEP, max_size=30), scopes=st.lists(st.sampled_from(_SCOPES), min_size=6, max_size=6))
def test_rows_are_those_of_live_fixtures(steps: list[tuple[str, int, bool]], scopes: list[ScopeName]) -> None:
    """Whatever is set up and finished in whatever order, the visible rows are those of the live fixtures, no others."""
    fixtures = Fixtures()
    writers: set[str] = set()
    numbers = count()
    for action, number, flag in steps:
        name = f"fixture {number}"
        if action == "use":
            if name not in fixtures.live:
                (writers.add if flag else writers.discard)(name)
            fixtures.use(name, scopes[number], writes=name in writers)
            assert name in fixtures.live
        elif action == "finish":
            fixtures.finish(name)
        else:
            test = Frame(f"test {next(numbers)}", "function")
            fixtures.stack.push(test)
            if flag:
                fixtures.rows.write("of test")
            fixtures.stack.close(test)

        assert sorted(fixtures.rows.visible) == sorted(writers & fixtures.live.keys())
        order = [_SCOPES.index(fixtures.live[open_name].scope) for open_name in fixtures.stack.names]
        assert order == sorted(order)

"""What the test run and its sandbox say to each other arrives as it was said, however the bytes are cut."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from pytest_chatdify_db.sandbox.dialogue import Said, Unpacker, packed, read

_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
SAID = st.dictionaries(st.sampled_from(["do", "name", "number"]), _VALUES | st.lists(_VALUES, max_size=3))


@given(st.lists(SAID, max_size=4), st.data())
def test_cut_anywhere(said: list[Said], data: st.DataObject) -> None:
    """Bytes may be cut anywhere: what is whole is handed out at once, and in order."""
    stream = b"".join(map(packed, said))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    unpacker = Unpacker()

    taken = [unpacker.take(stream[begin:end]) for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert [each for part in taken for each in part] == said


def test_cut_within_a_value() -> None:
    """What is not whole yet is kept for the rest of it."""
    one, other = {"do": "push", "name": "a"}, {"do": "pop"}
    stream, unpacker = packed(one) + packed(other), Unpacker()

    assert unpacker.take(stream[:2]) == []
    assert unpacker.take(stream[2:-1]) == [one]
    assert unpacker.take(stream[-1:]) == [other]


@given(st.lists(SAID, max_size=4))
def test_stream(said: list[Said]) -> None:
    """A stream yields what was said on it, and then its end."""
    stream = BytesIO(b"".join(map(packed, said)))

    assert [read(stream) for _ in said] == said
    assert read(stream) is None


def test_stream_that_breaks_off() -> None:
    """A stream that ends in the middle of something has ended: the other process is gone."""
    whole = packed({"do": "pop", "number": 1})

    assert [read(BytesIO(whole[:length])) for length in range(len(whole))] == [None] * len(whole)

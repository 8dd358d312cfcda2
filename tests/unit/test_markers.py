"""The marker's arguments."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.markers import LINE, DatabaseMark, is_similar, parse
from pytest_chatdify_db.mistakes.options import MarkerError


def test_valid() -> None:
    """What the signature allows becomes a mark."""
    assert parse("t", (), {}) == DatabaseMark()
    assert parse("t", (), {"isolation": "database"}) == DatabaseMark("database")
    assert parse("t", (), {"isolation": None, "reset_sequences": True}) == DatabaseMark(None, True)


@pytest.mark.parametrize(
    ("args", "kwargs", "cause"),
    [
        ((), {"isolation": "snapshot"}, "isolation is 'snapshot', not 'transaction' or 'database'"),
        ((), {"isolaton": "database"}, "got an unexpected keyword argument 'isolaton'"),
        (("database",), {}, "takes 0 positional arguments but 1 was given"),
        ((), {"n_plus_one": "on"}, "n_plus_one is 'on', not 'off' or 'warn' or 'error'"),
        ((), {"reset_sequences": 1}, "reset_sequences is 1, not True or False"),
    ],
)
def test_invalid(args: tuple[object, ...], kwargs: dict[str, object], cause: str) -> None:
    """What it does not allow is an error that names the test, the cause and the signature."""
    with pytest.raises(MarkerError) as caught:
        parse("test_it.py::test_it", args, kwargs)

    text = str(caught.value)
    assert text.startswith("chatdify-db: the marker 'chatdify_db' of test_it.py::test_it is not valid.")
    assert cause in text
    assert '@pytest.mark.chatdify_db(*, isolation="transaction"|"database", reset_sequences=False, ' in text


def test_help_line() -> None:
    """The line for ``--markers`` begins with the name and the signature."""
    signature = 'isolation="transaction"|"database", reset_sequences=False, n_plus_one="off"|"warn"|"error"'
    assert LINE.startswith(f"chatdify_db(*, {signature}): ")


@pytest.mark.parametrize(
    ("name", "is_meant"),
    [("chatdify", True), ("ChatdifyDB", True), ("chatdify_bd", True), ("chatdify_web", False), ("django_db", False)],
)
def test_similar_names(name: str, is_meant: bool) -> None:
    """A name that is almost the marker's is meant for it; one that begins as the application's does is not."""
    assert is_similar(name) is is_meant

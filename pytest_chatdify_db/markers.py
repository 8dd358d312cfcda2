"""The marker ``chatdify_db``: what it may say, checked by calling a function that has its signature."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import get_args

from pytest_chatdify_db.mistakes.options import MarkerError
from pytest_chatdify_db.settings import Isolation, Severity

NAME = "chatdify_db"
#: Half of the name is that of the application, and so of other markers too.
_SIMILAR = 0.87
LINE = (
    f'{NAME}(*, isolation="transaction"|"database", reset_sequences=False, '
    'n_plus_one="off"|"warn"|"error"): '
    "the test needs a database. isolation: undo the test's work by one rolled-back transaction, or give the test a "
    "database of its own with real commits; default: the option --chatdify-db-isolation. reset_sequences: let every "
    "serial and identity column continue after its largest value before the test starts. "
    "n_plus_one: what to do when a loop loads a relationship lazily; default: the option --chatdify-db-n-plus-one."
)


@dataclass(frozen=True, slots=True)
class DatabaseMark:
    """What one test asks for.

    Args:
        isolation: How its work is undone; None for the option's value.
        reset_sequences: Whether serial and identity columns are set back before it.
        n_plus_one: What lazy loads in a loop do; None for the option's value.
    """

    isolation: Isolation | None = None
    reset_sequences: bool = False
    n_plus_one: Severity | None = None


def chatdify_db(
    *, isolation: Isolation | None = None, reset_sequences: bool = False, n_plus_one: Severity | None = None
) -> DatabaseMark:
    """Hold the marker's signature: whatever Python refuses here, the marker refuses.

    Raises:
        ValueError: *isolation* or *n_plus_one* is not one of the valid values.
        TypeError: *reset_sequences* is no bool.
    """
    _check("isolation", isolation, get_args(Isolation))
    _check("n_plus_one", n_plus_one, get_args(Severity))
    if not isinstance(reset_sequences, bool):
        raise TypeError(f"reset_sequences is {reset_sequences!r}, not True or False")
    return DatabaseMark(isolation, reset_sequences, n_plus_one)


@cache
def is_similar(name: str) -> bool:
    """Return whether *name* may be meant for the marker's."""
    return difflib.SequenceMatcher(None, name.lower().replace("_", ""), NAME.replace("_", "")).ratio() > _SIMILAR


def _check(name: str, value: object, valid: Sequence[str]) -> None:
    if value is not None and value not in valid:
        raise ValueError(f"{name} is {value!r}, not {' or '.join(map(repr, valid))}")


def parse(test: str, args: Sequence[object], kwargs: Mapping[str, object]) -> DatabaseMark:
    """Read the arguments that *test* gave to its marker.

    Raises:
        MarkerError: They do not fit the signature; the text names the test.
    """
    try:
        return chatdify_db(*args, **kwargs)  # type: ignore[arg-type]  # what a test wrote: the call itself checks it
    except (TypeError, ValueError) as error:
        raise MarkerError.invalid(test, str(error).replace(f"{NAME}() ", "")) from None

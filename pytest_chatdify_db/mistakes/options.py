"""Mistakes in what a project asks for: the value of an option, the arguments of a marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pytest_chatdify_db.errors import ChatdifyDBError, alternatives


class OptionError(ChatdifyDBError):
    """An option has a value that is not valid."""

    @classmethod
    def invalid(cls, written: str, source: str, value: str, valid: Sequence[str]) -> Self:
        """Say which option, from where, and what it may be."""
        return cls.compose(
            f"chatdify-db: the option {written} is not valid.",
            cause=f"its value is {value!r} (from the {source})",
            fixes=[f"set it to {alternatives(valid)}", "remove it, to use the default"],
        )

    @classmethod
    def unknown(cls, written: str, source: str, near: Sequence[str], known: Sequence[str]) -> Self:
        """Say that no option has this name."""
        cause = f"there is no such option, so what it says (in the {source}) would count for nothing"
        if near:
            cause += f"; did you mean {alternatives(near)}?"
        return cls.compose(
            f"chatdify-db: the option {written} is not known.",
            cause=cause,
            fixes=[f"write it as one of {', '.join(known)}", "remove it"],
        )


class MarkerError(ChatdifyDBError):
    """A test's marker has arguments it does not take."""

    @classmethod
    def invalid(cls, test: str, cause: str) -> Self:
        """Say which test, and show the signature."""
        return cls.compose(
            f"chatdify-db: the marker 'chatdify_db' of {test} is not valid.",
            cause=cause,
            fixes=[
                'write it as @pytest.mark.chatdify_db(*, isolation="transaction"|"database", reset_sequences=False, '
                'n_plus_one="off"|"warn"|"error"), '
                "every argument by name",
                "remove it: no marker is needed for a rolled-back transaction",
            ],
        )

    @classmethod
    def misspelt(cls, test: str, name: str) -> Self:
        """Say that a marker is named almost as this plugin's."""
        return cls.compose(
            f"chatdify-db: the marker {name!r} of {test} is not known.",
            cause="nobody has registered it, so it would do nothing; did you mean 'chatdify_db'?",
            fixes=[
                "write it as @pytest.mark.chatdify_db",
                f"register it, if it is yours: markers = {name}: what it means",
            ],
        )

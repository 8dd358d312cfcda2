"""The errors of the plugin: one tree, and every text says what failed, why, what was tried and how to fix it.

ChatdifyDBError
+-- RunFailed               the private directory of the run could not be made or found
+-- ServerUnavailable       no PostgreSQL server could be started or used
+-- TemplateFailed          a database could not be built or cloned

A class is a family; a classmethod of it writes the text of one case. No text ever holds a password: an address goes in
by ``str(address)``, which hides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self


class ChatdifyDBError(Exception):
    """Base of all errors that tell a user of the plugin what to do."""

    @classmethod
    def compose(cls, what: str, *, cause: str, tried: Iterable[str] = (), fixes: Sequence[str]) -> Self:
        """Return the error with the four-part text.

        Args:
            what: What failed, a sentence.
            cause: The cause as seen, in one or more lines.
            tried: What was tried before giving up, one line each.
            fixes: Ways out, with commands; a single one is not introduced by "either".
        """
        parts = [what, _section("Cause", cause)]
        attempts = [f"  - {_indented(line)}" for line in tried]
        if attempts:
            parts.append("\n".join(["Tried:", *attempts]))
        head = "To fix this, either:" if len(fixes) > 1 else "To fix this:"
        parts.append("\n".join([head, *(f"  - {_indented(line)}" for line in fixes)]))
        return cls("\n".join(parts))


class RunFailed(ChatdifyDBError):
    """The private directory of the run could not be made or found."""

    @classmethod
    def cannot_create(cls, cause: str) -> Self:
        """No directory for this run."""
        return cls.compose(
            "chatdify-db could not make a private directory for this test run.",
            cause=cause,
            fixes=[
                "point TMPDIR to a directory that you can write to:  export TMPDIR=/some/short/path",
                "remove what is in the way, if it is yours:  rm -r $TMPDIR/chatdify-db-$(id -u)",
            ],
        )

    @classmethod
    def is_over(cls, directory: str) -> Self:
        """A worker came too late."""
        return cls.compose(
            "chatdify-db could not join its test run.",
            cause=f"the run's directory {directory} is gone: the process that made it has ended",
            fixes=["run pytest again; should it happen again, look for what ends pytest's controlling process early"],
        )


def _section(title: str, text: str) -> str:
    return f"{title}: {text}" if "\n" not in text else f"{title}:\n  " + text.replace("\n", "\n  ")


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")

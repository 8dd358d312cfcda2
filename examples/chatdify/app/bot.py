"""The language model that answers. A stand-in: the real one is a call over the network, which may fail."""

from __future__ import annotations

__all__ = ["BotUnavailable", "reply"]


class BotUnavailable(Exception):
    """The model did not answer; it may be back in a moment."""


def reply(text: str) -> str:
    """Return an answer to *text*.

    Raises:
        BotUnavailable: The model did not answer.
    """
    return f"You said: {text}"

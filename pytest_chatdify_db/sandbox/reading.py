"""Texts that are not read byte by byte: encodings with ASCII inside of characters, and backslashes that escape.

The rule: what is read has each byte where it was in what the client has sent, which is what the server gets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from pytest_chatdify_db.sandbox import lexer

_NO_LETTER: Final = re.compile(r"[^a-z0-9]")


def _characters(first: bytes) -> re.Pattern[bytes]:
    """Return what finds characters of several bytes, of which the second one may look like ASCII."""
    return re.compile(b"(?s)[" + first + rb"](?:[\x30-\x39].[\x30-\x39]|.)")


_SJIS: Final = _characters(rb"\x81-\x9f\xe0-\xfc")
_OTHERS: Final = _characters(rb"\x81-\xfe")

#: By the names that the server has for the encodings, without what is no letter (``encnames.c``).
_CHARACTERS: Final = {
    **dict.fromkeys(["sjis", "shiftjis", "shiftjis2004", "mskanji", "win932", "windows932"], _SJIS),
    **dict.fromkeys(["big5", "win950", "windows950", "gbk", "win936", "windows936"], _OTHERS),
    **dict.fromkeys(["uhc", "win949", "windows949", "gb18030", "johab"], _OTHERS),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How the texts of a client are read.

    Args:
        encoding: Its encoding, by any name that the server knows.
        escapes: Whether a backslash escapes in any string.
    """

    encoding: str = ""
    escapes: bool = False

    @classmethod
    def of(cls, encoding: str, *, escapes: bool) -> Self | None:
        """Return how to read texts in *encoding*; None if that is byte by byte."""
        known = _NO_LETTER.sub("", encoding.lower())
        return cls(known if known in _CHARACTERS else "", escapes) if escapes or known in _CHARACTERS else None

    def readable(self, text: bytes) -> bytes:
        """Return *text* as one that can be read byte by byte."""
        if self.encoding:
            text = _CHARACTERS[self.encoding].sub(_beyond_ascii, text)
        if self.escapes and b"\\" in text:
            text = lexer.without_escapes(text.decode("latin-1")).encode("latin-1")
        return text


def _beyond_ascii(character: re.Match[bytes]) -> bytes:
    return bytes(byte | 0x80 for byte in character[0])

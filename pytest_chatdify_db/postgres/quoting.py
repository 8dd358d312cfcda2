"""How SQL writes names and strings: the one place where they are quoted."""

from __future__ import annotations

import re
from typing import Final

_QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"')


def quote_name(name: str) -> str:
    """Return *name* as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Return *value* as a string constant that reads the same whatever ``standard_conforming_strings`` says."""
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def in_ascii(names: str) -> str:
    """Return quoted and other *names* such that they read the same whatever ``client_encoding`` says."""
    return names if names.isascii() else _QUOTED.sub(_escaped, names)


def _escaped(name: re.Match[str]) -> str:
    inside = (c if c.isascii() and c != "\\" else f"\\+{ord(c):06x}" for c in name[1])
    return f'U&"{"".join(inside)}"'

"""How SQL writes names and strings: the one place where they are quoted."""

from __future__ import annotations


def quote_name(name: str) -> str:
    """Return *name* as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Return *value* as a string constant that reads the same whatever ``standard_conforming_strings`` says."""
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"

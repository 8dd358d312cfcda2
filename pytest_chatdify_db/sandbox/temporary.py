"""Temporary tables: whose each one is, and what ends it, in a session where all clients' share one schema.

The rule: what a statement makes is read from its text; the server drops or empties it where the client's own session
would have, at COMMIT, DISCARD or the end of the connection; and to another client it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pytest_chatdify_db.postgres.quoting import in_ascii, quote_literal, quote_name
from pytest_chatdify_db.sandbox.lexer import Token, code, text_of
from pytest_chatdify_db.sandbox.statement import Statement

_NAME: Final = r'("(?:[^"]|"")+"|[a-z_\x80-\xff][\w$\x80-\xff]*)'
_SCHEMA: Final = rf"(?:{_NAME}\s*\.\s*)?"
_CREATE = re.compile(
    r"\s*create\s+(?:or\s+replace\s+)?(?:(?:global|local)\s+)?(temp(?:orary)?\s+)?(?:recursive\s+)?"
    rf"(table|view|sequence)\s+(?:if\s+not\s+exists\s+)?{_SCHEMA}{_NAME}",
    re.IGNORECASE,
)
_INTO = re.compile(
    rf"\binto\s+(?:(?:global|local)\s+)?temp(?:orary)?\s+(?:table\s+)?(?!table\b|values\b|select\b){_NAME}",
    re.IGNORECASE,
)
_ON_COMMIT = re.compile(r"\bon\s+commit\s+(drop|delete\s+rows)\b", re.IGNORECASE)
_DROP = re.compile(r"\s*drop\s+(?:table|view|sequence)\s+(?:if\s+exists\s+)?(.*)", re.IGNORECASE | re.DOTALL)
_RENAME = re.compile(
    rf"\s*alter\s+(?:table|view|sequence)\s+(?:if\s+exists\s+)?(?:only\s+)?{_SCHEMA}{_NAME}(?:\s*\*)?\s+rename\s+to\s+{_NAME}",
    re.IGNORECASE,
)
_WORD = re.compile(rf"{_SCHEMA}{_NAME}", re.IGNORECASE)
_TEMPORARY = re.compile(r"\b(?:pg_)?temp(?:orary)?\b", re.IGNORECASE)
_USED = re.compile(
    rf"\b(?:from|join|into|update|table|copy|truncate|lock|exists)\s+(?:only\s+)?{_SCHEMA}{_NAME}", re.IGNORECASE
)
#: How much of a statement is looked at.
_LONGEST: Final = 4_096


class AtCommit(Enum):
    """What a COMMIT does to a temporary table."""

    KEEP = auto()
    EMPTY = auto()
    DROP = auto()


@dataclass(frozen=True, slots=True)
class Temporary:
    """A temporary table, view or sequence.

    Args:
        name: Its name.
        sort: ``TABLE``, ``VIEW`` or ``SEQUENCE``.
        at_commit: What the COMMIT of its client does to it.
        depth: How many frames were open when it was made; it goes with the last of them.
        encoding: That of its name.
    """

    name: str
    sort: str = "TABLE"
    at_commit: AtCommit = AtCommit.KEEP
    depth: int = 0
    encoding: str = "UTF8"

    @property
    def drop(self) -> str:
        """The SQL that drops it, if it is there."""
        return f"DROP {self.sort} IF EXISTS {self._on_server} CASCADE"

    @property
    def empty(self) -> str:
        """The SQL that empties it, if it is there."""
        body = f"BEGIN TRUNCATE {self._on_server}; EXCEPTION WHEN undefined_table THEN NULL; END"
        return f"DO {quote_literal(body)}"

    @property
    def _on_server(self) -> str:
        # Statements are read byte by byte; SQL of the sandbox's own is sent as text.
        return "pg_temp." + in_ascii(quote_name(text_of(self.name, self.encoding)))


#: A client's temporary tables by name: replaced and never changed, so that a savepoint can keep them.
Tables = Mapping[str, Temporary]

NO_TABLES: Final[Tables] = MappingProxyType({})


def made(statement: Statement, depth: int = 0) -> Temporary | None:
    """Return what *statement* makes that is temporary, in the frame that is the *depth*-th; None if nothing."""
    if _TEMPORARY.search(statement.text, 0, _LONGEST) is None:
        return None
    text = _code(statement.text)
    created = _CREATE.match(text)
    if created is None:
        into = _INTO.search(text)
        return Temporary(_plain(into[1]), depth=depth) if into is not None else None
    temporary, sort, schema, name = created.groups()
    if not temporary and _plain(schema or "") != "pg_temp":
        return None
    ends = _ON_COMMIT.search(text, created.end())
    at_commit = AtCommit.KEEP if ends is None else AtCommit.DROP if ends[1].lower() == "drop" else AtCommit.EMPTY
    return Temporary(_plain(name), sort.upper(), at_commit, depth)


def dropped(statement: Statement) -> frozenset[str]:
    """Return the names of temporary tables that *statement* would drop."""
    match = _DROP.match(_code(statement.text)) if statement.verb == "drop" else None
    return _temporary_names(_WORD, match[1]) if match is not None else frozenset()


def renamed(tables: Tables, statement: Statement) -> Tables:
    """Return *tables* as they are called after *statement*."""
    match = _RENAME.match(_code(statement.text)) if statement.verb == "alter" else None
    if (
        match is None
        or _plain(match[1] or "") not in {"", "pg_temp"}
        or (table := tables.get(_plain(match[2]))) is None
    ):
        return tables
    new = replace(table, name=_plain(match[3]))
    return {**without(tables, [table.name]), new.name: new}


@lru_cache(maxsize=1_024)
def used(statement: Statement) -> frozenset[str]:
    """Return the names of tables that *statement* uses or makes, where a temporary one would be meant."""
    text = _code(statement.text)
    created = _CREATE.match(text)
    if created is None:
        return _temporary_names(_USED, text)
    new = made(statement)
    return _temporary_names(_USED, text[created.end() :]) | ({new.name} if new is not None else set())


@lru_cache(maxsize=1_024)
def _code(text: str) -> str:
    """Return as much of *text* as is looked at, without constants and comments."""
    return code(text[:_LONGEST])


def _temporary_names(pattern: re.Pattern[str], text: str) -> frozenset[str]:
    found = ((_plain(schema), _plain(name)) for schema, name in pattern.findall(text))
    return frozenset(name for schema, name in found if schema in {"", "pg_temp"})


def _plain(name: str) -> str:
    return Token(name, 0, 0).name if name else ""


def at_commit(tables: Iterable[Temporary]) -> list[str]:
    """Return the SQL of a COMMIT for *tables*."""
    return [
        table.drop if table.at_commit is AtCommit.DROP else table.empty
        for table in tables
        if table.at_commit is not AtCommit.KEEP
    ]


def without(tables: Tables, names: Iterable[str]) -> Tables:
    """Return *tables* without those of *names*."""
    gone = frozenset(names)
    return {name: table for name, table in tables.items() if name not in gone} if gone else tables

"""Dirty reads: what a client sees here and would not see from PostgreSQL, since it is not committed yet.

The rule: only connections of the application count, as readers and as writers; and only a statement that names a table
in which another one's open transaction has written. The first such read of each pair and table is noted, no more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final

from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.lexer import code
from pytest_chatdify_db.sandbox.reports import DirtyRead
from pytest_chatdify_db.sandbox.statement import Statement

#: What the application name of a connection begins with that belongs to the test itself, not to the application.
TEST_APPLICATION: Final = "pytest"

_NAME: Final = r'(?:"[^"]+"|[a-z_\x80-\xff][\w$\x80-\xff]*)'
_CHANGES: Final = r"\b(?:insert\s+into|update|delete\s+from|merge\s+into|copy|truncate(?:\s+table)?)\s+"
#: No table follows DO UPDATE SET and FOR UPDATE.
_NO_TABLE: Final = r"(?!(?:set|of|skip|nowait)\b)"
_TARGET = re.compile(rf"{_CHANGES}(?:only\s*[\s(]\s*)?{_NO_TABLE}({_NAME}(?:\s*\.\s*{_NAME})*)", re.IGNORECASE)
_SOURCES = re.compile(r"\bfrom\b(.*)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(rf"{_NAME}", re.IGNORECASE)
_NO_COLUMN = re.compile(rf"({_NAME})(?!\s*\.|[\w$\x80-\xff])", re.IGNORECASE)

#: How much of a statement is looked at.
_LONGEST: Final = 16_384


def written_by(statement: Statement) -> frozenset[str]:
    """Return the tables that *statement* names as the target of a change, without their schemas."""
    return _targets(statement.text[:_LONGEST])


@lru_cache(maxsize=1_024)
def _targets(text: str) -> frozenset[str]:
    return frozenset(_folded(match.rpartition(".")[2].strip()) for match in _TARGET.findall(code(text)))


@lru_cache(maxsize=1_024)
def _words(text: str) -> frozenset[str]:
    return frozenset(_folded(word) for word in _WORD.findall(code(text)))


def _folded(name: str) -> str:
    return name.strip('"') if name.startswith('"') else name.lower()


class DirtyReads:
    """The uncommitted writes of a test, and the reads that should not have seen them."""

    def __init__(self) -> None:
        self.found: list[DirtyRead] = []
        self._seen: set[tuple[int, int, str]] = set()
        self._open: dict[int, dict[str, str]] = {}  # by writer: the last statement that wrote to each table
        self._own: set[int] = set()  # who works for the test itself

    def own(self, number: int, *, is_own: bool) -> None:
        """Note whether the client of that number works for the test itself now."""
        if is_own:
            self._own.add(number)
        else:
            self._own.discard(number)

    @property
    def may_be_read(self) -> bool:
        """Whether there are uncommitted writes that another client might read."""
        return bool(self._open)

    def wrote(self, client: Client, statement: Statement) -> None:
        """Note a write inside a transaction that the client began itself."""
        if client.in_transaction and not self._is_of_the_test(client):
            for table in written_by(statement):
                self._open.setdefault(client.number, {})[table] = statement.text

    def ended(self, client: Client) -> None:
        """Note that the client has nothing uncommitted any more."""
        self._open.pop(client.number, None)

    def undone(self, client: Client, tables: Collection[str]) -> None:
        """Note that what the client has written is undone, but for *tables*."""
        written = self._open.pop(client.number, {})
        if remaining := {table: text for table, text in written.items() if table in tables}:
            self._open[client.number] = remaining

    def read(self, client: Client, statements: Iterable[Statement]) -> DirtyRead | None:
        """Return the dirty read that *statements* would be, None if they are none or it is known already."""
        if not self._open or self._is_of_the_test(client):
            return None
        for statement in statements:
            for writer, tables in self._open.items():
                if writer == client.number or not statement.reads_data:
                    continue
                for table in tables.keys() & _words(statement.text[:_LONGEST]):
                    key = (client.number, writer, table)
                    if key not in self._seen and not _only_inserts(statement, table):
                        self._seen.add(key)
                        dirty = DirtyRead(client.number, writer, statement.text, tables[table], table)
                        self.found.append(dirty)
                        return dirty
        return None

    def _is_of_the_test(self, client: Client) -> bool:
        name = client.parameters.effective.get("application_name", "")
        return client.number in self._own or name.startswith(TEST_APPLICATION)

    def take(self) -> list[DirtyRead]:
        """Return what was found, and begin anew."""
        found, self.found = self.found, []
        self._seen.clear()
        self._open.clear()
        return found


def _only_inserts(statement: Statement, table: str) -> bool:
    """Return whether *statement* only adds rows to *table*, and reads nothing of it."""
    is_insert = statement.verb == "insert" and table in written_by(statement)
    return is_insert and table not in _sources(statement.text[:_LONGEST])


@lru_cache(maxsize=1_024)
def _sources(text: str) -> frozenset[str]:
    """Return the names behind the first FROM that are not those of a column's table."""
    found = _SOURCES.search(code(text))
    return frozenset(_folded(name) for name in _NO_COLUMN.findall(found[1])) if found else frozenset()

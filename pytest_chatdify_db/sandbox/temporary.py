"""Temporary tables with ON COMMIT: the server acts at its COMMIT, which never comes; so it is told at the client's.

The rule: what a table was made to do is read from the statement that made it, and done by SQL that fails for no table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_chatdify_db.postgres.quoting import quote_literal, quote_name
from pytest_chatdify_db.sandbox.lexer import Token
from pytest_chatdify_db.sandbox.sql import Statement

_CREATE = re.compile(
    r"\s*create\s+(?:(?:global|local)\s+)?temp(?:orary)?\s+table\s+(?:if\s+not\s+exists\s+)?(?:pg_temp\s*\.\s*)?"
    r"(\"(?:[^\"]|\"\")+\"|[\w$]+).*?\bon\s+commit\s+(drop|delete\s+rows)\b",
    re.IGNORECASE | re.DOTALL,
)


def made(statement: Statement) -> tuple[str, bool] | None:
    """Return the temporary table that *statement* makes and whether COMMIT drops it, or else empties it.

    None if it makes none that ends or changes with COMMIT.
    """
    match = _CREATE.match(statement.text)
    return (Token(match[1], 0, 0).name, match[2].lower() == "drop") if match is not None else None


def at_commit(tables: Mapping[str, bool]) -> list[str]:
    """Return the SQL of a COMMIT for *tables*: their names, and whether each is dropped."""
    return [_drop(name) if is_dropped else _empty(name) for name, is_dropped in tables.items()]


def _drop(name: str) -> str:
    return f"DROP TABLE IF EXISTS pg_temp.{quote_name(name)} CASCADE"


def _empty(name: str) -> str:
    table = f"pg_temp.{quote_name(name)}"
    body = f"BEGIN IF pg_catalog.to_regclass({quote_literal(table)}) IS NOT NULL THEN TRUNCATE {table}; END IF; END"
    return f"DO {quote_literal(body)}"

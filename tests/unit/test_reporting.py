"""The lines that the plugin prints."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_chatdify_db.reporting import header, merged, summary
from pytest_chatdify_db.settings import resolve


@dataclass(frozen=True)
class Facts:
    """A server, as far as the summary goes."""

    provider: str = "embedded"
    reason: str = "no Docker engine answers"
    version: str = "18.4"
    started_in: float = 0.123


def test_header_shows_what_matters() -> None:
    """Server, metadata and isolation are always shown, the rest only if somebody chose it; each with its source."""
    options = resolve({"chatdify_db_server": "postgresql://me:secret@host/db"}, {"CHATDIFY_DB_SQL": "off"}, {})

    assert header(options) == (
        "chatdify-db: server=postgresql://me:***@host:5432/db (command line), metadata=app.db:Base (default), "
        "isolation=transaction (default), sql=off (environment)"
    )


def test_summary() -> None:
    """The summary says which server it was, why, and how long its start took."""
    assert summary(Facts()) == ("chatdify-db: PostgreSQL 18.4 (embedded, no Docker engine answers), started in 0.12 s")
    assert summary(Facts("external", "", "17.2", 0.0)) == "chatdify-db: PostgreSQL 17.2 (external)"


def test_lines_of_workers_are_merged() -> None:
    """What every worker says is said once."""
    assert merged(["a", "b", "a"]) == ["a", "b"]

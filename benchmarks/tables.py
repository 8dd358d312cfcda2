"""Tables of results, as text for a terminal and as Markdown for the documentation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """One table of results.

    Args:
        title: Its heading.
        columns: The heading of each column; the first one names the row.
        rows: The cells, as many in each row as there are columns.
        notes: Sentences on how to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def as_text(table: Table) -> str:
    """Return *table* for a terminal, its columns aligned."""
    widths = [max(len(row[column]) for row in (table.columns, *table.rows)) for column in range(len(table.columns))]
    lines = [_aligned(row, widths) for row in (table.columns, tuple("-" * width for width in widths), *table.rows)]
    return "\n".join([table.title, "=" * len(table.title), *lines, "", *table.notes])


def as_markdown(table: Table) -> str:
    """Return *table* as a Markdown section of the second level."""
    rows = (table.columns, ("---", *["--:"] * (len(table.columns) - 1)), *table.rows)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *lines, *notes])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = [(cell, width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

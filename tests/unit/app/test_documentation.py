"""The reference page is complete and true: every name, setting and parameter is in it, and its code is valid."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import app.database
import app.db
from app.config import Settings
from app.db.parameters import KNOWN_PARAMETERS

PAGE = (Path(__file__).parents[3] / "docs" / "production-layer.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """Return the rows of the table below *heading*: each name in the first cell, with the rest of its row."""
    section = PAGE.split(f"\n{heading}\n")[1].split("\n#")[0]
    cells = [line.strip("|").split("|", 1) for line in section.splitlines() if line.startswith("| `")]
    return {name: rest for first, rest in cells for name in re.findall(r"`(\w+)", first)}


def test_every_public_name() -> None:
    """Each name of ``app.db`` and of ``app.database`` is on the page."""
    for name in {*app.db.__all__, *app.database.__all__}:
        assert re.search(rf"`[^`\n]*\b{name}\b", PAGE), name


def test_every_setting_and_its_default() -> None:
    """The table of settings has each setting, no other, and the default of each."""
    table = rows("## Settings")

    assert set(table) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        shown = "" if field.default is None else str(field.default).removesuffix(".0")
        assert shown.lower() in table[name].split("|")[0].lower(), name


def test_every_parameter() -> None:
    """The table of URL parameters has each parameter that is accepted, and no other."""
    assert set(rows("### Parameters of `DATABASE_URL`")) == KNOWN_PARAMETERS


def test_code_is_valid() -> None:
    """Each block of Python on the page compiles."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    assert len(blocks) >= 3
    for block in blocks:
        ast.parse(block)

"""The documentation as data: its pages, and the fenced blocks in them.

A block whose first line is a comment with a path, ``# tests/test_it.py``, is that file of the page's project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = tuple(sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"# ((?:[\w.-]+/)*[\w-]+\.\w+)\n")
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?[^)]*\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Args:
        page: The page's name.
        line: The number of its first line of text.
        language: What follows the fence.
        text: What is inside.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def path(self) -> str | None:
        """The file of the page's project that the block is, or None if it is only to be read."""
        found = _PATH.match(self.text)
        return found.group(1) if found else None

    def __str__(self) -> str:
        """Return where the block is."""
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of *page* in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, found.start(2)) + 1, found.group(1), found.group(2))
        for found in _BLOCK.finditer(text)
    ]


def project(page: Path) -> dict[str, str]:
    """Return the files of the project that *page* describes; blocks of one path are one file, in order."""
    files: dict[str, str] = {}
    for block in blocks(page):
        if block.path is not None:
            files[block.path] = files.get(block.path, "") + block.text
    return files


def section(page: Path, title: str) -> str:
    """Return the text of *page* below the heading *title*, to the next heading of the same level."""
    below = page.read_text(encoding="utf-8").split(f"\n## {title}\n")[1]
    return below.partition("\n## ")[0]


def links(page: Path) -> list[str]:
    """Return the relative links of *page*, without what follows a ``#``."""
    return [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if link]

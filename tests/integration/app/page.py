"""The page the layer was ordered by, ``foundation.md``, as data: its claims and its blocks of code.

A claim is a sentence on a line of its own, an item of a list, or a block of code, which is named by its heading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

PATH: Final = Path(__file__).with_name("foundation.md")
_Test = TypeVar("_Test", bound=Callable[..., Any])
_ITEM: Final = re.compile(r"(?:- |\d+\. )(.*)")


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the page says.

    Args:
        name: The line without the sign of its list; for code its heading, counted where there are several blocks.
        code: The block; empty for a sentence.
    """

    name: str
    code: str = ""


def claims() -> dict[str, Claim]:
    """Return all claims of the page by their names, in order."""
    return {claim.name: claim for claim in _read(PATH.read_text(encoding="utf-8").splitlines())}


def code(name: str) -> str:
    """Return the block of code that *name* names."""
    found = claims()[name].code
    assert found, f"{name} is no block of code"
    return found


class Proofs:
    """Which tests prove which claims."""

    def __init__(self) -> None:
        self.quoted: dict[str, list[str]] = {}

    def of(self, *names: str) -> Callable[[_Test], _Test]:
        """Decorate a test that proves the claims called *names*."""

        def note(test: _Test) -> _Test:
            for name in names:
                self.quoted.setdefault(name, []).append(test.__name__)
            return test

        return note


def _read(lines: list[str]) -> Iterator[Claim]:
    heading, blocks = "", 0
    block: list[str] | None = None
    for line in lines:
        if line.startswith("```"):
            if block is not None:
                blocks += 1
                yield Claim(f"code: {heading}" + (f" ({blocks})" if blocks > 1 else ""), "\n".join(block) + "\n")
            block = [] if block is None else None
        elif block is not None:
            block.append(line)
        elif line.startswith("#"):
            heading, blocks = line.strip("# "), 0
        elif text := line.strip():
            item = _ITEM.fullmatch(text)
            yield Claim(item.group(1) if item else text)

"""What the modules of the repository import, read from their source: nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "pytest_chatdify_db")


@cache
def modules() -> dict[str, Path]:
    """Return every module of the distribution by its name."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {_name(file.relative_to(ROOT)): file for file in sorted(files)}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return what *module* imports at run time, at its top or inside functions; a name's module, not the name."""
    reader = _Reader()
    reader.visit(ast.parse(modules()[module].read_text(encoding="utf-8")))
    return frozenset(reader.found)


def inner_imports_of(module: str) -> Iterator[str]:
    """Yield those imports of *module* that are modules of the distribution."""
    return (name for name in sorted(imports_of(module)) if name in modules())


def known_to(module: str) -> frozenset[str]:
    """Return the modules of the distribution that *module* knows, be it as types alone."""
    reader = _Reader(with_types=True)
    reader.visit(ast.parse(modules()[module].read_text(encoding="utf-8")))
    return frozenset(reader.found & modules().keys())


def outer_imports_of(module: str) -> Iterator[str]:
    """Yield those imports of *module* that are not of the distribution."""
    return (name for name in sorted(imports_of(module)) if name not in modules())


class _Reader(ast.NodeVisitor):
    def __init__(self, *, with_types: bool = False) -> None:
        self.found: set[str] = set()
        self._with_types = with_types

    def visit_If(self, node: ast.If) -> None:
        # What only a type checker reads is no dependency.
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not self._with_types:
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative imports are not used"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            self.found.add(whole if whole in modules() else str(node.module))


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

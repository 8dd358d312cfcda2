"""The fixtures that the plugin gives to a project: what its surface, the module of hooks, imports from the fixtures."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_chatdify_db import plugin


def fixtures() -> dict[str, Callable[..., Any]]:
    """Return the function of each public fixture, by its name."""
    tree = ast.parse(Path(str(plugin.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and ".fixtures." in str(node.module)]
    names = [alias.name for node in imports for alias in node.names if not alias.name.startswith("_")]
    return {name: inspect.unwrap(getattr(plugin, name)) for name in names}

"""Tests that need more than Python: ``@pytest.mark.needs("pgbouncer")``, ``@pytest.mark.docker`` for a Docker engine.

Where it is missing they are not run: the header says once what is missing and why, and they are counted as deselected.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers import engine

_PLACES = ("/usr/sbin", "/usr/local/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))


_PROGRAMS = ("chromedriver", "chromium", "docker-compose", "initdb", "openssl", "pgbouncer", "redis-server")

# Plugins of pytest that this one has to get along with.
_PLUGINS = ("cov", "randomly", "repeat", "rerunfailures", "timeout")

#: Arguments of pytest against plugins that only these tests need. To load them all takes a second.
WITHOUT_OURS: Final = [
    f"-pno:{name}"
    for name in (
        *("hypothesispytest", "pytest_cov", "randomly", "repeat", "rerunfailures", "timeout"),
        *("xdist", "xdist.looponfail"),
    )
]


def program(name: str) -> str | None:
    """Return the path of an installed program; None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path=":".join(_PLACES))


def _docker() -> str:
    try:
        engine.require(engine.endpoint())
    except ServerUnavailable as error:
        return error.cause
    return ""


def _disk() -> str:
    with TemporaryDirectory() as folder:
        commands = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], ["umount", folder]
        try:
            results = [subprocess.run(command, capture_output=True, check=False) for command in commands]
        except OSError as error:
            return str(error)
    return "" if not any(result.returncode for result in results) else "this user may not mount one"


def _installed(name: str) -> Callable[[], str]:
    return lambda: "" if program(name) else "it is not installed"


def _importable(module: str) -> Callable[[], str]:
    return lambda: "" if find_spec(module) else "it is not installed"


# What may be needed, and how to find out why it is not there.
_NEEDS: dict[str, Callable[[], str]] = {
    "docker": _docker,
    "small-disk": _disk,
    **{name: _installed(name) for name in _PROGRAMS},
    **{f"pytest-{name}": _importable(f"pytest_{name}") for name in _PLUGINS},
}


@cache
def missing() -> dict[str, str]:
    """Return what is missing, and why."""
    found = {name: why() for name, why in _NEEDS.items()}
    return {name: why for name, why in found.items() if why}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"needs(*names): is run only where all of these are: {', '.join(_NEEDS)}")
    config.addinivalue_line("markers", "docker: is run only where a Docker engine answers")


def pytest_report_header() -> list[str]:
    """Say what is missing."""
    return [f"not run: tests that need {name} ({why})" for name, why in missing().items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests that cannot run here."""
    unable = [item for item in items if _needs_of(item) & missing().keys()]
    if unable:
        config.hook.pytest_deselected(items=unable)
        items[:] = [item for item in items if item not in unable]


def _needs_of(item: pytest.Item) -> set[str]:
    names = {name for marker in item.iter_markers("needs") for name in marker.args}
    if item.get_closest_marker("docker") is not None:
        names.add("docker")
    unknown = names - _NEEDS.keys()
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: unknown need {', '.join(unknown)}; known: {', '.join(_NEEDS)}")
    return names

"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.postgres import Stand

_PACKAGES = ("SQLAlchemy", "asyncpg", "psycopg2-binary", "pytest", "pytest-asyncio", "pytest-xdist")


def describe(stand: Stand) -> list[str]:
    """Return lines that name the machine, the load on it and the versions."""
    one, five, _ = os.getloadavg()
    return [
        f"{_processor()}, {os.cpu_count()} cores; {platform.system()} {platform.release()}; load {one:.1f}, "
        f"{five:.1f} before the run",
        f"Python {platform.python_version()}, PostgreSQL {stand.version}, " + ", ".join(_versions(_PACKAGES)),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions(packages: Iterable[str]) -> list[str]:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found

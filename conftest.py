"""The root of all tests: only what pytest allows nowhere else."""

from __future__ import annotations

pytest_plugins = ["pytester", "tests.needs"]

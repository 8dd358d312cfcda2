"""How many tests the suite has, from the environment."""

from __future__ import annotations

import os

NUMBERS = range(int(os.environ["BENCHMARK_TESTS"]))

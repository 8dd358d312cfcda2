"""Times one piece of work over and over. The rule: the first times warm caches and do not count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Final

_TO_WARM_UP: Final = 20
_MEASURED: Final = 100


class Stopwatch:
    """What was measured, in seconds."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def rounds(self) -> Iterator[int]:
        """Yield the number of each round; what is done between two is timed."""
        for number in range(_TO_WARM_UP + _MEASURED):
            began = time.perf_counter()
            yield number
            self._seconds.append(time.perf_counter() - began)

    @property
    def median(self) -> float:
        """The median of a round."""
        return statistics.median(self._seconds[_TO_WARM_UP:])

"""Numbers that travel: medians with their spread, and comparisons made pair by pair. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True)
class Figure:
    """A median and the extremes that it stands for.

    Args:
        median: The figure to quote.
        low: The smallest value.
        high: The largest value.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the figure of *values*, of which there is at least one."""
        known = list(values)
        return cls(median(known), min(known), max(known))

    @classmethod
    def ratio(cls, values: Sequence[float], others: Sequence[float]) -> Self:
        """Return the figure of *values* over *others*, pair by pair; what has no partner is left out."""
        return cls.of(value / other for value, other in zip(values, others, strict=False))

    @classmethod
    def difference(cls, values: Sequence[float], others: Sequence[float]) -> Self:
        """Return the figure of *values* minus *others*, pair by pair; what has no partner is left out."""
        return cls.of(value - other for value, other in zip(values, others, strict=False))

    def scaled(self, factor: float) -> Figure:
        """Return the figure in another unit."""
        return Figure(self.median * factor, self.low * factor, self.high * factor)

    def text(self, digits: int = 2) -> str:
        """Return ``1.27 (1.21-1.33)``; the median alone if there is no spread."""
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

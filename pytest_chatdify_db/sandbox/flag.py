"""One byte that the test run and its sandbox both see: raised while the end of a frame would have nothing to report.

The rule: only the sandbox sets it, and before a client is answered; whoever was answered finds it as it is then. So
the test run learns without asking that it need not wait for the end of a test, as nearly always.
"""

from __future__ import annotations

import mmap
import os
from typing import Final, Self

_LOWERED: Final = 0
_RAISED: Final = 1


class Flag:
    """The flag in the memory of the file *fd*, which both processes have open."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, 1)

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """Return a new flag, lowered, and the file descriptor that another process makes it of."""
        import tempfile  # takes 5 ms, which the sandbox itself would lose at its start

        with tempfile.TemporaryFile() as file:
            file.truncate(1)
            return cls(file.fileno()), os.dup(file.fileno())

    @property
    def is_raised(self) -> bool:
        """Whether it is raised."""
        return self._memory[0] == _RAISED

    def set(self, is_raised: bool) -> None:
        """Raise or lower it."""
        self._memory[0] = _RAISED if is_raised else _LOWERED

    def close(self) -> None:
        """Give the memory up; it is lowered then."""
        self._memory.close()

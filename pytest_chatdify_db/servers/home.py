"""The user's home directory, or where there is none: containers run with user ids that have no name and no HOME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: In place of a directory that is not to be had. It is none, so nothing below it can be read or made.
NOWHERE: Final = Path(os.devnull)


def home() -> Path:
    """Return the home directory, `NOWHERE` if there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return NOWHERE

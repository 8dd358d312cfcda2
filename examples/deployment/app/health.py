"""``python -m app.health``: whether a process with these settings reaches its database; for a worker's health check."""

from __future__ import annotations

import sys

from app.db import DatabaseUnavailable, check_database_sync

if __name__ == "__main__":
    try:
        check_database_sync(timeout=5.0)
    except DatabaseUnavailable as error:
        sys.exit(str(error))

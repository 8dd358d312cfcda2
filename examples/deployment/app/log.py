"""Logs: lines on the standard error, as containers want them; the SQL too where ``SQL_LOG`` is set."""

from __future__ import annotations

import logging
import os

__all__ = ["configure"]


def configure() -> None:
    """Configure the logs of this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    if os.environ.get("SQL_LOG"):
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)

"""Proof that a server runs with the settings it was given: each one is read back."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.connection import Connection


def check_settings(connection: Connection, expected: Mapping[str, str]) -> None:
    """Make sure that the server has the *expected* settings.

    Raises:
        ServerUnavailable: One has another value.
    """
    names = ", ".join(f"current_setting('{name}')" for name in expected)
    (row,) = connection.query(f"SELECT {names}")
    for (name, value), actual in zip(expected.items(), row, strict=True):
        if actual != value:
            raise ServerUnavailable.setting_ignored(name, value, actual or "")

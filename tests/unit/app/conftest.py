"""An environment of the test's own: no database variables, no settings read before, no engine made before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.config import Settings, get_settings
from app.db import engines


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Give the monkeypatch to set variables with, in an environment without any of the settings' own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(engines, "_engines", {})
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()

"""What the plugin keeps on pytest's configuration: one object, found by a key; no module globals."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest

from pytest_chatdify_db.lifecycle import Lifecycle
from pytest_chatdify_db.provisioning import ProgressCallback
from pytest_chatdify_db.redirect import Redirect


@dataclass(slots=True)
class State:
    """The plugin's state in one pytest process.

    Args:
        lifecycle: The tests' database.
        item: The test whose set-up, call or tear-down is going on.
        progress: Takes the steps of the start while it goes on.
        telling_modules: The modules after whose import a test may use the database without saying so.
        first_failure: What the first failed start said, in one line, and for which test; None if none failed.
        summaries: Lines for the end of the report, from this process or from xdist workers.
    """

    lifecycle: Lifecycle
    item: pytest.Item | None = None
    progress: ProgressCallback = field(default=lambda _: None)
    telling_modules: tuple[str, ...] = ()
    first_failure: str | None = None
    summaries: list[str] = field(default_factory=list)


KEY = pytest.StashKey[State]()
#: There before the state: the environment is redirected before the first conftest is imported.
REDIRECT = pytest.StashKey[Redirect]()


def of(config: pytest.Config) -> State:
    """Return the state that belongs to *config*."""
    return config.stash[KEY]


def has_plugin(config: pytest.Config, module: str) -> bool:
    """Whether *module* is loaded as a plugin, under whatever name: a plugin's name depends on how it was asked for."""
    loaded = sys.modules.get(module)
    return loaded is not None and config.pluginmanager.is_registered(loaded)

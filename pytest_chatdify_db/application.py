"""The application under test, as far as it uses ``app.db``: where its settings lead to, and its open connections.

The rule: it is looked for among the modules that the tests have imported, and never imported from here.
"""

from __future__ import annotations

import sys
from typing import Any

from pytest_chatdify_db.mistakes.connections import RedirectError
from pytest_chatdify_db.redirect import Redirect


def check(redirect: Redirect) -> None:
    """Make sure that the environment and the application's settings name the sandbox.

    Raises:
        RedirectError: They name something else.
    """
    changed = redirect.changed()
    if changed is not None:
        raise RedirectError.variable_changed(*changed)
    url = _url()
    address = redirect.address
    if url is not None and (url.host, url.port) != (address.host, address.port):
        raise RedirectError.settings_differ(url.render_as_string(hide_password=True))


def dispose_engines() -> None:
    """Close the connections of the application's pools before the sandbox goes."""
    engines = sys.modules.get("app.db.engines")
    if engines is None:
        return
    for engine in engines.existing().values():
        # Those of the asyncio engines are closed with their event loops.
        if not hasattr(engine, "sync_engine"):
            engine.dispose()


def _url() -> Any:
    """Return the URL in the application's settings; None if they were not read, or name no database."""
    config = sys.modules.get("app.config")
    get_settings = getattr(config, "get_settings", None)
    if config is None or get_settings is None:
        return None
    try:
        return get_settings().url
    except Exception:  # noqa: BLE001 - whatever is wrong with them, they cannot lead to another database
        return None

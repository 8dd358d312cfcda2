"""How the plugin enters a pytest process: environment redirected, options read, markers checked, companions there.

``--help``, ``--version`` and ``--collect-only`` work whatever is wrong with the options or the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

import pytest

from pytest_chatdify_db import explanations, items, options, reporting, state, xdist
from pytest_chatdify_db.lifecycle import Lifecycle
from pytest_chatdify_db.mistakes.connections import RedirectError
from pytest_chatdify_db.mistakes.options import OptionError
from pytest_chatdify_db.redirect import Redirect
from pytest_chatdify_db.settings import Options

NAME: Final = "chatdify_db"
PACKAGE: Final = "pytest_chatdify_db"

_USELESS_BLOCK: Final = f"""\
-p no:{PACKAGE} does not switch the plugin off: it is loaded by the name of its entry point.
To fix this: -p no:{NAME}"""


def refuse_ineffective_block(pluginmanager: pytest.PytestPluginManager) -> None:
    """Stop a run that believes it has switched the plugin off."""
    if pluginmanager.is_blocked(PACKAGE):
        raise pytest.UsageError(_USELESS_BLOCK)


def redirect_environment(config: pytest.Config) -> None:
    """Point the environment to the sandbox until *config* is out of use, also after an error; once only."""
    if state.REDIRECT in config.stash:
        return
    redirect = Redirect.begin(user=options.login_role(config))
    config.stash[state.REDIRECT] = redirect
    config.add_cleanup(_forget_settings)
    config.add_cleanup(redirect.end)
    config.pluginmanager.register(explanations.EndOfRun(config), "chatdify_db_end_of_run")
    _forget_settings()


def refuse_misspelt(arguments: Iterable[str]) -> None:
    """Stop a run whose command line names an option that is almost one of this plugin's."""
    try:
        options.check_flags(arguments)
    except OptionError as error:
        raise pytest.UsageError(str(error)) from None


def configure(config: pytest.Config) -> None:
    """Read the options and make the plugin's state; companions are registered where their plugin is there."""
    # A plugin that a conftest.py names comes too late for pytest_load_initial_conftests.
    redirect_environment(config)
    lifecycle = Lifecycle(
        _read_options(config),
        config.stash[state.REDIRECT],
        root=config.invocation_params.dir,
        project=config.rootpath,
        worker=xdist.worker_name(config),
        run_directory=xdist.run_directory(config),
    )
    lifecycle.say = reporting.aside(config)
    config.stash[state.KEY] = state.State(lifecycle, telling_modules=lifecycle.modules)
    config.add_cleanup(lifecycle.close)
    if not _must_work(config):
        _refuse_early_engine()
    _register_companions(config)


def check_markers(config: pytest.Config, collected: Iterable[pytest.Item]) -> None:
    """Stop the run if a test's marker is not valid, naming every such test."""
    errors = items.marker_errors(collected)
    # A worker of xdist cannot stop the run; there each of these tests fails by itself.
    if errors and not hasattr(config, "workerinput"):
        raise pytest.UsageError("\n\n".join(map(str, errors)))


def _read_options(config: pytest.Config) -> Options:
    try:
        options.check_names(config)
        return options.read(config)
    except OptionError as error:
        if _must_work(config):
            return Options()
        raise pytest.UsageError(str(error)) from None


def _must_work(config: pytest.Config) -> bool:
    return any(getattr(config.option, name, False) for name in ("help", "version", "collectonly"))


def _register_companions(config: pytest.Config) -> None:
    plugins = config.pluginmanager
    if state.has_plugin(config, "pytest_asyncio.plugin"):
        from pytest_chatdify_db.fixtures import asyncio_loops

        plugins.register(asyncio_loops, "chatdify_db_asyncio")
    if state.has_plugin(config, "anyio.pytest_plugin"):
        from pytest_chatdify_db.fixtures import anyio_loop

        plugins.register(anyio_loop, "chatdify_db_anyio")
    if xdist.is_controller(config):
        plugins.register(xdist.Controller(), "chatdify_db_xdist")


def _refuse_early_engine() -> None:
    engines = sys.modules.get("app.db.engines")
    if engines is not None and engines.existing():
        raise pytest.UsageError(str(RedirectError.engine_exists("app.db")))


def _forget_settings() -> None:
    """Let the application read its settings again, if a plugin imported it before the environment changed."""
    get_settings = getattr(sys.modules.get("app.config"), "get_settings", None)
    cache_clear = getattr(get_settings, "cache_clear", None)
    if cache_clear is not None:
        cache_clear()

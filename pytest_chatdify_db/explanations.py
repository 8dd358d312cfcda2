"""Explanations: what the plugin adds to an error that a project meets because it has the plugin.

Explained are the use of the database before it is started, a fixture of a test's own in a wider one, a broker that is
not there, a marker that is misspelt. The error itself stays as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final

import pytest

from pytest_chatdify_db import markers, state
from pytest_chatdify_db.mistakes.connections import EarlyUse
from pytest_chatdify_db.mistakes.fixtures import FixtureError
from pytest_chatdify_db.mistakes.options import MarkerError
from pytest_chatdify_db.mistakes.schema import SchemaError

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionRepr

TITLE: Final = "chatdify-db"

_LAYER: Final = ("app.db", "app.config", "app.database")
_MISMATCH: Final = re.compile(r"^ScopeMismatch: .*function scoped fixture (\w+) with a (\w+) scoped", re.MULTILINE)
_STRICT: Final = re.compile(r"^'(\w+)' not found in `markers` configuration option")
_SEAMS: Final = ("chatdify_db_metadata", "chatdify_db_seed", "chatdify_db_server")
_OF_ONE_TEST: Final = ("session", "sync_session", "chatdify_db")


def early_use(config: pytest.Config, error: BaseException) -> str:
    """Return what to say about *error*, raised by an import; empty unless this plugin is what it is about."""
    for cause in _chain(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name in _LAYER:
            file = getattr(sys.modules.get("app"), "__file__", None)
            return str(SchemaError.layer_hidden(file)) if file else ""
    refused = _refusal(config, error)
    if not refused:
        return ""
    from pytest_chatdify_db.tracing.callers import Callers

    callers, trace = Callers(config.invocation_params.dir), error.__traceback__
    # The line that a user has to move is the one outside of every function.
    line = callers.last_of(trace, "<module>")
    if line is None:
        return use_before_start(config, error)  # in a hook of the collection
    return str(EarlyUse.at_import(str(line), refused))


def unknown_marker(module: str, error: BaseException) -> str:
    """Return what to say about *error*, if pytest takes registered markers alone and *module* has one almost ours."""
    found = _STRICT.search(str(error))
    if found is None or not markers.is_similar(found[1]):
        return ""
    return str(MarkerError.misspelt(module, found[1]))


def use_before_start(config: pytest.Config, error: BaseException) -> str:
    """Return what to say about *error*, raised by a fixture or hook; empty unless it used a database not started."""
    now = config.stash.get(state.KEY, None)
    if now is not None and now.lifecycle.running is not None:
        return ""
    refused = _refusal(config, error)
    if not refused:
        return ""
    from pytest_chatdify_db.tracing.callers import Callers

    # The line that a user has to move is that of the hook or fixture, whatever it calls.
    line = Callers(config.invocation_params.dir).first_of(error.__traceback__)
    return str(EarlyUse.before_start(str(line or "a line"), refused))


def too_wide(error: BaseException) -> str:
    """Return what to say about *error*, if a fixture of a test's own was asked for by a wider one."""
    found = _MISMATCH.search(str(error))
    if found is None:
        return ""
    fixture, scope = found.groups()
    if fixture in _SEAMS:
        return str(FixtureError.seam_too_narrow(fixture))
    return str(FixtureError.of_one_test(fixture, scope)) if fixture in _OF_ONE_TEST else ""


def without_broker(error: BaseException) -> str:
    """Return what to say about *error*, if a task was sent and no broker has answered."""
    is_of_kombu = (type(error).__module__, type(error).__name__) == ("kombu.exceptions", "OperationalError")
    return str(FixtureError.no_broker(str(error))) if is_of_kombu else ""


def explain(item: pytest.Item, error: BaseException) -> list[tuple[str, str]]:
    """Return the section for the report of *item* that tells what *error* is about, where the project cannot know."""
    text = too_wide(error) or use_before_start(item.config, error) or without_broker(error)
    return [(TITLE, text)] if text else []


class EndOfRun:
    """Explains the error of a hook, which ends the run.

    Args:
        config: Of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: ExceptionRepr, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Have what is shown of it end with the explanation."""
        text = use_before_start(self._config, excinfo.value)
        if text:
            excrepr.addsection(TITLE, text)


def explain_conftest(config: pytest.Config) -> Generator[None]:
    """Wrap the import of conftest files and what they name: add the explanation to the error of an import."""
    try:
        return (yield)
    except Exception as error:
        cause = _imported(error)
        text = early_use(config, cause)
        if text:
            cause.add_note(text)
        raise


def _imported(error: Exception) -> BaseException:
    """Return what an import has raised, which pytest may have put into an *error* of its own."""
    if not type(error).__module__.startswith("_pytest."):
        return error
    return getattr(error, "cause", None) or error.__cause__ or error


def _refusal(config: pytest.Config, error: BaseException) -> str:
    """Return the words of *error* if it is a connection refused at the address where nobody listens yet."""
    redirect = config.stash.get(state.REDIRECT, None)
    if redirect is not None:
        for cause in _chain(error):
            # In the words of any driver.
            if str(redirect.address.port) in str(cause):
                return str(cause).strip().partition("\n")[0]
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

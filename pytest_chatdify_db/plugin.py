"""The plugin's whole surface: its hooks, each a few lines, and its fixtures. Nothing imports this module.

With the plugin loaded and no test that uses a database, nothing is imported but pytest and small modules of its own.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_chatdify_db import (
    doctor,
    entry,
    explanations,
    guards,
    lifetimes,
    markers,
    options,
    reporting,
    showing,
    state,
    tracebacks,
    xdist,
)
from pytest_chatdify_db.fixtures.celery import celery_eager as celery_eager
from pytest_chatdify_db.fixtures.concurrency import chatdify_db_concurrency as chatdify_db_concurrency
from pytest_chatdify_db.fixtures.database import (
    _chatdify_db_metadatas as _chatdify_db_metadatas,
)
from pytest_chatdify_db.fixtures.database import (
    _chatdify_db_started as _chatdify_db_started,
)
from pytest_chatdify_db.fixtures.database import (
    chatdify_db as chatdify_db,
)
from pytest_chatdify_db.fixtures.database import (
    chatdify_db_metadata as chatdify_db_metadata,
)
from pytest_chatdify_db.fixtures.database import (
    chatdify_db_seed as chatdify_db_seed,
)
from pytest_chatdify_db.fixtures.database import (
    chatdify_db_server as chatdify_db_server,
)
from pytest_chatdify_db.fixtures.fastapi import override_dependencies as override_dependencies
from pytest_chatdify_db.fixtures.live_server import live_server as live_server
from pytest_chatdify_db.fixtures.migrations import (
    chatdify_db_assert_migrations_match as chatdify_db_assert_migrations_match,
)
from pytest_chatdify_db.fixtures.on_commit import capture_on_commit as capture_on_commit
from pytest_chatdify_db.fixtures.queries import assert_max_num_queries as assert_max_num_queries
from pytest_chatdify_db.fixtures.queries import assert_num_queries as assert_num_queries
from pytest_chatdify_db.fixtures.sessions import session as session
from pytest_chatdify_db.fixtures.sessions import sync_session as sync_session


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options."""
    entry.refuse_ineffective_block(pluginmanager)
    options.add(parser)
    doctor.add_option(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Examine the database instead of running tests, if that was asked for."""
    return doctor.main(config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Generator[None]:
    """Redirect the environment before the first conftest is imported."""
    entry.redirect_environment(early_config)
    entry.refuse_misspelt(args)
    return (yield from explanations.explain_conftest(early_config))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, read the options, make the state."""
    config.addinivalue_line("markers", markers.LINE)
    entry.configure(config)


def pytest_report_header(config: pytest.Config) -> str:
    """Say what was asked for, and where."""
    return reporting.header(state.of(config).lifecycle.options)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check every marker."""
    entry.check_markers(config, items)


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector,
    call: pytest.CallInfo[Any],
    report: pytest.CollectReport | pytest.TestReport,
) -> None:
    """Explain an import that uses the database, or a marker that is misspelt."""
    if isinstance(report, pytest.CollectReport) and call.excinfo is not None:
        error = call.excinfo.value
        text = explanations.unknown_marker(node.nodeid, error) or explanations.early_use(node.config, error)
        if text:
            report.sections.append((explanations.TITLE, text))


def pytest_enter_pdb(config: pytest.Config) -> None:
    """Say how to join the transaction that the debugged test is in."""
    showing.say_how_to_join(config)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of those that capture and log
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Have the database started first if the test needs it; begin the turn of an item without fixtures of its own."""
    __tracebackhide__ = True
    lifetimes.begin(item)
    yield
    lifetimes.open_turn(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Give the rows of a fixture the life of the fixture."""
    __tracebackhide__ = True
    return (yield from lifetimes.set_up(fixturedef, request))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Watch the test's lazy loads if they matter."""
    __tracebackhide__ = True
    return (yield from guards.watch_loops(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Note the end of the test."""
    __tracebackhide__ = True
    try:
        return (yield)
    finally:
        guards.end(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the SQL, or explain a failure for want of a database."""
    if call.excinfo is not None:
        tracebacks.shorten(call.excinfo, item.config)
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    report.sections.extend(showing.sections(item, report, error))
    if error is not None:
        report.sections.extend(explanations.explain(item, error))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell of what was written after the last test and what is kept; give a worker's summary to the controller."""
    guards.finish(session.config)
    showing.sum_up(session.config)
    xdist.hand_in(session.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which server was used."""
    if config.get_verbosity() >= 0:
        for line in state.of(config).summaries:
            terminalreporter.write_line(line)

"""What is shown of a test and its database: in its report, to who debugs it, and at the end of the run.

The rule: a section says what cannot be seen from the test's own error, and is left out where it has nothing to say.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from pytest_chatdify_db import state
from pytest_chatdify_db.reporting import coloured

if TYPE_CHECKING:
    from pytest_chatdify_db.lifecycle import Lifecycle
    from pytest_chatdify_db.tracing.transcript import Transcript

Section = tuple[str, str]

_KEPT: Final = "chatdify-db: the database of this test"
_EXPLAIN: Final = "chatdify-db: EXPLAIN"
_WAIT: Final = "chatdify-db: a wait for a lock"

_NOT_STARTED: Final = """\
The tests' database was not running: this test, or code it called, was the first to import {modules}, while it ran.
To have the database, either:
  - import it at the top of the test's module or in conftest.py
  - ask for a fixture such as sync_session, or mark the test with @pytest.mark.chatdify_db"""


def sections(item: pytest.Item, report: pytest.TestReport, error: BaseException | None = None) -> list[Section]:
    """Return sections for a test's report: the SQL it ran, what it waited for, or why it had no database.

    Args:
        item: The test.
        report: The report of one of its phases.
        error: What it has raised in it.
    """
    lifecycle = state.of(item.config).lifecycle
    running = lifecycle.running
    found: list[Section] = []
    if report.failed and running is not None and (kept := running.keep_database()):
        found.append((_KEPT, kept))
    if lifecycle.transcript is not None and _is_shown(report, lifecycle.options.sql):
        found += _sql(item, report, lifecycle, lifecycle.transcript, error)
    if running is not None and running.turn is not None and _is_shown(report, lifecycle.options.explain):
        found += [(_EXPLAIN, plans)] if (plans := running.plans()) else []
    if lifecycle.watcher is not None and report.failed:
        found += [(_WAIT, text) for text in lifecycle.watcher.told]
    return found or _want_of_database(lifecycle, report)


def _sql(
    item: pytest.Item,
    report: pytest.TestReport,
    lifecycle: Lifecycle,
    transcript: Transcript,
    error: BaseException | None,
) -> list[Section]:
    from pytest_chatdify_db.tracing import sql_report

    elsewhere = lifecycle.running.executed_elsewhere() if lifecycle.running is not None else []
    passed = transcript.callers.passed(error.__traceback__) if error is not None else ()
    text = sql_report.section(transcript.statements, lifecycle.options.mask, elsewhere, passed)
    if not text:
        return []
    item.user_properties.append((sql_report.PROPERTY, text))
    if report.when == "teardown":  # the last report, which JUnit XML takes them from, is made already
        report.user_properties.append((sql_report.PROPERTY, text))
    return [(sql_report.TITLE, coloured(item.config, text))]


def _want_of_database(lifecycle: Lifecycle, report: pytest.TestReport) -> list[Section]:
    if not report.failed or lifecycle.running is not None or report.when != "call":
        return []
    if not any(name in sys.modules for name in lifecycle.modules):
        return []
    return [("chatdify-db", _NOT_STARTED.format(modules=" or ".join(lifecycle.modules)))]


def _is_shown(report: pytest.TestReport, choice: str) -> bool:
    return choice != "off" and (report.failed or (choice == "all" and report.when == "call"))


def say_how_to_join(config: pytest.Config) -> None:
    """Show, as a debugger begins, how psql sees what the test sees: also what is not committed."""
    running = state.of(config).lifecycle.running
    if running is not None and running.turn is not None and config.pluginmanager.hasplugin("terminalreporter"):
        writer = config.get_terminal_writer()
        is_own = running.turn.isolation == "database"
        writer.line(
            "chatdify-db: " + ("open the test's own database" if is_own else "join the test's transaction") + ":"
        )
        writer.line(f"  {running.psql}")


def sum_up(config: pytest.Config) -> None:
    """Have the end of the run tell what is kept."""
    now = state.of(config)
    if now.lifecycle.keeping is not None and now.lifecycle.keeping.summary:
        now.summaries.append(now.lifecycle.keeping.summary)

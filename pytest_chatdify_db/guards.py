"""Guards: what is watched around a test, and told as a warning or a failure that names the test and the line.

Watched are lazy loads in a loop, and writes while no test runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_chatdify_db import items, state

if TYPE_CHECKING:
    from pytest_chatdify_db.tracing.findings import Finding


def tell(item: pytest.Item, finding: Finding) -> None:
    """Warn at the place of *item*, or fail."""
    if finding.severity == "error":
        pytest.fail(finding.text, pytrace=False)
    _warn(finding, str(item.path), (item.location[1] or 0) + 1)


def begin(now: state.State, item: pytest.Item, before: pytest.Item | None) -> None:
    """Note that *item* begins; tell what was written since *before*, the last one, had ended."""
    transcript, watcher = now.lifecycle.transcript, now.lifecycle.watcher
    if watcher is not None:
        watcher.begin(item.nodeid)
    if now.lifecycle.running is not None:
        now.lifecycle.running.checkouts.begin_test()
    stray = transcript.begin_test() if transcript is not None else []
    if stray:
        from pytest_chatdify_db.tracing.findings import stray_writes

        tell(item, stray_writes(None if before is None else before.nodeid, stray))


def end(item: pytest.Item) -> None:
    """Note that *item*, with all that it set up, is over."""
    lifecycle = state.of(item.config).lifecycle
    if lifecycle.transcript is not None:
        lifecycle.transcript.end_test()
    if lifecycle.watcher is not None:
        lifecycle.watcher.end()


def finish(config: pytest.Config) -> None:
    """Tell what was written after the last test."""
    now = state.of(config)
    stray = now.lifecycle.transcript.stray if now.lifecycle.transcript is not None else []
    if stray:
        from pytest_chatdify_db.tracing.findings import stray_writes

        finding = stray_writes(None if now.item is None else now.item.nodeid, stray)
        warnings.warn(finding.category(finding.text), stacklevel=1)


def watch_loops(item: pytest.Item) -> Generator[None]:
    """Wrap the call of a test: tell of lazy loads in a loop, if its marker or the option asks for it."""
    __tracebackhide__ = True
    lifecycle = state.of(item.config).lifecycle
    transcript = lifecycle.transcript
    mark = items.mark_of(item)
    severity = lifecycle.options.n_plus_one if mark is None or mark.n_plus_one is None else mark.n_plus_one
    if transcript is None or severity == "off":
        return (yield)
    from pytest_chatdify_db.tracing.findings import loops

    with transcript.naming_lazy_loads():
        yield
    for finding in loops(item.nodeid, transcript.statements, severity):
        tell(item, finding)
    return None


def _warn(finding: Finding, file: str, line: int) -> None:
    warnings.warn_explicit(finding.category(finding.text), None, file, line)

"""When the database is started, and which rows live how long, in terms of pytest's tests and fixtures.

The start happens before the first fixture of the first test that needs the database. A test's turn begins before its
first function-scoped fixture and ends after the last of them is torn down; a wider fixture's rows live as long as the
fixture.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import pytest

from pytest_chatdify_db import application, guards, items, state
from pytest_chatdify_db.errors import ChatdifyDBError, RunFailed
from pytest_chatdify_db.lifecycle import first_line
from pytest_chatdify_db.mistakes.connections import SandboxGone
from pytest_chatdify_db.mistakes.fixtures import LateFixture
from pytest_chatdify_db.provisioning import Schema
from pytest_chatdify_db.reporting import Progress, summary
from pytest_chatdify_db.running import Running
from pytest_chatdify_db.scopes import Frame

if TYPE_CHECKING:
    from pytest_chatdify_db.sandbox.handle import FrameReport

START: Final = "_chatdify_db_started"
_AnyFixture = pytest.FixtureDef[Any]


def begin(item: pytest.Item) -> None:
    """Prepare the set-up of *item*: if it needs the database, the start is the first thing that its set-up does."""
    now = state.of(item.config)
    before, now.item = now.item, item
    guards.begin(now, item, before)
    with reported():
        items.check_rivals(item)
        items.check_spelling(item)
        items.mark_of(item)
    fixturenames = getattr(item, "fixturenames", None)
    if now.lifecycle.running is not None:
        if fixturenames and fixturenames[0] == START:
            del fixturenames[0]  # the first parameter set has done it, and to ask again takes time
        return
    if not items.needs_database(item, now.telling_modules):
        return
    if now.first_failure is not None:
        pytest.fail(now.first_failure, pytrace=False)
    if fixturenames is not None:
        # The names are set up in order; the same list serves every parameter set of a test function.
        fixturenames[:] = [START, *(name for name in fixturenames if name != START)]


def need(request: pytest.FixtureRequest) -> None:
    """Start the database for a fixture that the test asks for while it runs, so that nobody knew of it before."""
    if state.of(request.config).lifecycle.running is None:
        request.getfixturevalue(START)
        open_turn(request.node)


def open_turn(item: pytest.Item) -> None:
    """Begin the turn of *item*, if the database was started and its turn has not begun.

    It ends after the tear-down of whatever is set up from now on, since finalizers run last first.
    """
    now = state.of(item.config)
    running = now.lifecycle.running
    if running is not None and running.turn is None:
        item.addfinalizer(lambda: _close_turn(now, item))
        with reported(), _final(now, item):
            running.open_turn(item.nodeid, items.mark_of(item))


def _close_turn(now: state.State, item: pytest.Item) -> None:
    running = now.lifecycle.running
    if running is None:
        return
    with reported(), _final(now, item):
        noticed = running.close_turn()
    for finding in noticed:
        guards.tell(item, finding)


def set_up(fixturedef: _AnyFixture, request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Wrap the set-up of any fixture: the body of the hook ``pytest_fixture_setup``."""
    __tracebackhide__ = True
    lifecycle = state.of(request.config).lifecycle
    running = lifecycle.running
    if running is None:
        return (yield)
    if fixturedef.scope == "function":
        # Whichever plugin's fixture comes first: the turn begins before it, and so ends after it.
        if running.turn is None:
            open_turn(request.node)
        return (yield)
    with running.checkouts.disregarded():
        if running.turn is not None and running.turn.database is not None:
            # Fixtures of plugins are let pass: pytest-asyncio makes its wider event loops as late as this.
            if items.is_local(fixturedef, request.config):
                error = LateFixture.in_own_database(fixturedef.argname, fixturedef.scope, running.turn.test)
                _abandon(fixturedef, request, error)
            return (yield)
        return (yield from _set_up_wider(running, fixturedef, request))


def _set_up_wider(
    running: Running, fixturedef: _AnyFixture, request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    __tracebackhide__ = True
    frame = Frame(fixturedef.argname, fixturedef.scope, lambda: fixturedef.finish(request))  # type: ignore[arg-type]  # the request's exact class is private to pytest
    # Finalizers run last first: this one after the fixture's own tear-down, ...
    lifecycle = state.of(request.config).lifecycle
    fixturedef.addfinalizer(lambda: lifecycle.close_frame(frame))
    try:
        with running.frames.setting_up(frame):
            value = yield
    except LateFixture as error:
        _abandon(fixturedef, request, error)
    if running.frames.clear_way(frame, is_in_use=_in_use(request)):
        return fixturedef.execute(request)  # type: ignore[arg-type]  # the request's exact class is private to pytest
    if not running.frames.holds(frame):
        running.know_leaks(cast("FrameReport", running.frames.last_report))
        # ... and this one before it, so that what the tear-down writes is undone as well.
        fixturedef.addfinalizer(lambda: lifecycle.push_frame(frame))
    return value


def _in_use(request: pytest.FixtureRequest) -> Callable[[Frame], bool]:
    values = getattr(state.of(request.config).item, "funcargs", {})
    return lambda frame: frame.name in values


def _abandon(fixturedef: _AnyFixture, request: pytest.FixtureRequest, reason: ChatdifyDBError) -> NoReturn:
    """Fail the set-up of a fixture that has not begun, or that has to be taken back."""
    error = _as_failure(reason)
    # pytest runs the finalizers of a fixture only if it has a result.
    fixturedef.cached_result = (None, fixturedef.cache_key(request), (error, None))  # type: ignore[arg-type]  # the request's exact class is private to pytest
    fixturedef.finish(request)  # type: ignore[arg-type]  # the request's exact class is private to pytest
    raise error from None


# Starting ---------------------------------------------------------------------------------------------------------


def start(request: pytest.FixtureRequest) -> Running:
    """Start the database with what the project's seams say: the body of a session-scoped fixture."""
    now = state.of(request.config)
    modules = [name for name in now.telling_modules if name in sys.modules]
    try:
        with Progress(request.config, now.lifecycle.speak_for_all) as progress:
            running = _start(request, progress)
    except (ChatdifyDBError, OSError) as problem:
        if _lacks_descriptors(problem):
            error: ChatdifyDBError = RunFailed.no_descriptors(str(problem.__cause__ or problem))
        elif isinstance(problem, ChatdifyDBError):
            error = problem
        else:
            raise
        now.first_failure = _short(error, now.item)
        # What this start has imported says nothing about the tests to come.
        now.telling_modules = tuple(modules)
        raise _as_failure(error) from None
    now.summaries.append(summary(running.server))
    return running


def _lacks_descriptors(problem: BaseException | None) -> bool:
    """Return whether *problem*, or what has caused it, is that no more files could be opened."""
    if isinstance(problem, OSError) and problem.errno in {errno.EMFILE, errno.ENFILE}:
        return True
    return problem is not None and _lacks_descriptors(problem.__cause__)


def _start(request: pytest.FixtureRequest, progress: Progress) -> Running:
    lifecycle = state.of(request.config).lifecycle
    provisioning = lifecycle.provisioning
    application.check(lifecycle.redirect)
    progress("starting PostgreSQL and loading the tables")
    if items.is_default(request, "chatdify_db_server"):
        provisioning.begin_server(progress)
    lifecycle.spawn_sandbox()
    is_migrated = provisioning.migrations is not None
    schema = Schema(
        () if is_migrated else request.getfixturevalue("_chatdify_db_metadatas"),
        request.getfixturevalue("chatdify_db_seed"),
    )
    provisioning.plan(schema)
    progress("starting PostgreSQL")
    state.of(request.config).progress = progress
    server = request.getfixturevalue("chatdify_db_server")
    if isinstance(server, str):
        server = provisioning.start_server(progress, server)
    return lifecycle.start(server, schema, progress)


# Messages ---------------------------------------------------------------------------------------------------------


@contextmanager
def reported() -> Generator[None]:
    """Turn the plugin's errors into failures that show their text alone."""
    try:
        yield
    except ChatdifyDBError as error:
        raise _as_failure(error) from None


@contextmanager
def _final(now: state.State, item: pytest.Item) -> Generator[None]:
    """After a failure of the sandbox itself, have the other tests fail at once, and with a short text."""
    try:
        yield
    except SandboxGone as error:
        now.lifecycle.running = None
        now.first_failure = _short(error, item)
        raise


def _short(error: ChatdifyDBError, item: pytest.Item | None) -> str:
    test = "an earlier test" if item is None else item.nodeid
    return f"{first_line(error)}\n(The report of {test} says why, and how to fix it.)"


def _as_failure(error: ChatdifyDBError) -> BaseException:
    return pytest.fail.Exception(str(error), pytrace=False)

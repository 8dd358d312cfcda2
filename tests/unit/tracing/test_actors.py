"""On whose behalf something is executed."""

from __future__ import annotations

import threading

from pytest_chatdify_db.tracing.actors import Actors, current


def test_nobody_in_particular() -> None:
    """On the main thread it is the test; on another one, the thread."""
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(current()), name="worker")
    thread.start()
    thread.join()

    assert current() == "test"
    assert seen == ["thread worker"]


def test_acting() -> None:
    """The innermost actor counts; one that comes again has a number, until another test begins."""
    actors = Actors()
    with actors.acting("request GET /"):
        with actors.acting("task ship"):
            assert current() == "task ship"
        assert current() == "request GET /"
    with actors.acting("request GET /"):
        assert current() == "request GET / (#2)"
    actors.begin_anew()
    with actors.acting("request GET /"):
        assert current() == "request GET /"
    assert current() == "test"

"""One run for all of xdist's workers: the controller makes it, the workers attach to it, the controller ends it.

The controller runs no tests and so starts nothing. Registered only where xdist is loaded and distributes the tests.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from pytest_chatdify_db import reporting, state

_DIRECTORY: Final = "chatdify_db_run"
_SUMMARIES: Final = "chatdify_db_summaries"


def is_controller(config: pytest.Config) -> bool:
    """Whether *config* is that of the process that distributes tests to workers."""
    return (
        not hasattr(config, "workerinput")
        and state.has_plugin(config, "xdist.plugin")
        and getattr(config.option, "dist", "no") != "no"
    )


def worker_name(config: pytest.Config) -> str:
    """Return the id of the worker, ``gw0``; ``main`` in a process that is none."""
    return str(_input(config).get("workerid", "main"))


def run_directory(config: pytest.Config) -> str | None:
    """Return the directory of the run that the controller made; None in a process that is no worker."""
    directory = _input(config).get(_DIRECTORY)
    return None if directory is None else str(directory)


def hand_in(config: pytest.Config) -> None:
    """Give a worker's lines for the summary to the controller."""
    output: dict[str, object] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_SUMMARIES] = state.of(config).summaries


class Controller:
    """The hooks of the controller."""

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker that is about to start which run it belongs to."""
        node.workerinput[_DIRECTORY] = str(state.of(node.config).lifecycle.provisioning.run.directory)

    def pytest_testnodedown(self, node: Any) -> None:
        """Take the lines for the summary from a worker that has ended; one that died hands none in."""
        now = state.of(node.config)
        given = getattr(node, "workeroutput", {}).get(_SUMMARIES, [])
        now.summaries = reporting.merged([*now.summaries, *given])


def _input(config: pytest.Config) -> dict[str, Any]:
    return getattr(config, "workerinput", {})

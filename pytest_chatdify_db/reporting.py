"""What the plugin says on the terminal: pure functions return the lines, and one context manager shows slow progress.

With ``-q`` nothing is said. A start that takes less than half a second is not worth a line. Colours are pytest's, where
it has them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.settings import SETTINGS, Options

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_PATIENCE = 0.5


class ServerFacts(Protocol):
    """What the summary says about a server."""

    @property
    def provider(self) -> str:
        """``embedded``, ``container`` or ``external``."""

    @property
    def reason(self) -> str:
        """Why it was chosen."""

    @property
    def version(self) -> str:
        """Its version, ``17.2``."""

    @property
    def started_in(self) -> float:
        """Seconds that its start took."""


def header(options: Options) -> str:
    """Return the line of the report's header: what was asked for, and where."""
    always = ("server", "isolation", "metadata")
    shown = []
    for setting in SETTINGS:
        source = options.source(setting.name)
        if setting.name in always or source != "default":
            shown.append(f"{setting.name}={value_of(options, setting.name)} ({source})")
    return "chatdify-db: " + ", ".join(shown)


def summary(server: ServerFacts) -> str:
    """Return the line of the report's end: which server was used, why, and how long its start took."""
    reason = f", {server.reason}" if server.reason else ""
    took = f", started in {server.started_in:.2f} s" if server.started_in else ""
    return f"chatdify-db: PostgreSQL {server.version} ({server.provider}{reason}){took}"


def merged(lines: Iterable[str]) -> list[str]:
    """Return the workers' summary lines without repeats, in order."""
    return list(dict.fromkeys(lines))


def value_of(options: Options, name: str) -> str:
    """Return the value of the option *name* as it may be shown: without a password, empty if there is none."""
    value = getattr(options, name)
    if name == "server" and options.server_url is not None:
        return str(Address.from_url(options.server_url))
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def coloured(config: pytest.Config, text: str) -> str:
    """Return *text*, the SQL section, with what failed in red and hints in yellow, if this terminal has colours."""
    if not config.pluginmanager.hasplugin("terminalreporter"):
        return text
    writer = config.get_terminal_writer()
    if not writer.hasmarkup:
        return text
    lines, colours = text.splitlines(), {"!": "red", "    -> ": "red", "hint:": "yellow", "      ": "yellow"}
    for position, line in enumerate(lines):
        colour = next((colour for begin, colour in colours.items() if line.startswith(begin)), None)
        if colour is not None:
            lines[position] = writer.markup(line, **{colour: True})
    return "\n".join(lines)


def aside(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a text on the terminal while a test runs, from any thread; with ``-q`` nothing is shown.

    To be called while pytest configures: later it captures what is written, so the file that is the terminal now is
    kept, as pytest's faulthandler does.
    """
    if config.get_verbosity() < 0:
        return lambda _: None
    try:
        terminal = os.dup(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # stderr is no file
        return lambda _: None
    config.add_cleanup(lambda: os.close(terminal))
    return lambda text: _write(terminal, f"\n{text}\n")


def _write(file: int, text: str) -> None:
    with suppress(OSError):
        os.write(file, text.encode(errors="replace"))


class Progress:
    """Tells the terminal what is going on once it has taken half a second; called with each new step.

    Args:
        config: The run's configuration. Nothing is shown with ``-q``.
        speaks: In a process without a terminal of its own, a worker of xdist, shows a text on that of the run.
    """

    def __init__(self, config: pytest.Config, speaks: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._speaks = speaks
        self._lock = threading.Lock()
        self._step = ""
        self._is_late = False
        self._timer = threading.Timer(_PATIENCE, self._become_late)
        self._timer.daemon = True
        self._resources = ExitStack()

    def __call__(self, step: str) -> None:
        """Take note of the step that begins."""
        with self._lock:
            self._step = step
            if self._is_late:
                self._show()

    def __enter__(self) -> Self:
        if self._reporter() is not None:
            capture = self._config.pluginmanager.getplugin("capturemanager")
            if capture is not None:
                self._resources.enter_context(capture.global_and_fixture_disabled())
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_late = False
            self._step = ""
        self._resources.close()

    def _become_late(self) -> None:
        with self._lock:
            self._is_late = True
            self._show()

    def _show(self) -> None:
        text, self._step = f"chatdify-db: {self._step} ..." if self._step else "", ""
        if not text:
            return
        reporter = self._reporter()
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(text)
        else:
            self._speaks(text)

    def _reporter(self) -> pytest.TerminalReporter | None:
        # A worker of xdist has one too, which nobody reads.
        if self._config.get_verbosity() < 0 or hasattr(self._config, "workerinput"):
            return None
        reporter: pytest.TerminalReporter | None = self._config.pluginmanager.getplugin("terminalreporter")
        return reporter

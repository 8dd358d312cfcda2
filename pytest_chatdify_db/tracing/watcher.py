"""The watcher: a thread that notices when a statement of the running test waits for a lock, and says for whose.

The rule: a wait that can never end is ended with an error within a second; of any other the terminal and the test's
report are told, once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Final

from pytest_chatdify_db.sandbox.handle import SandboxError
from pytest_chatdify_db.tracing import waiting
from pytest_chatdify_db.tracing.statements import Line
from pytest_chatdify_db.tracing.waiting import Side

if TYPE_CHECKING:
    from pytest_chatdify_db.sandbox.handle import Sandbox
    from pytest_chatdify_db.sandbox.waits import Wait
    from pytest_chatdify_db.tracing.transcript import Running, Transcript

#: Seconds between two looks, and how long a test must have run before the first one: most are over by then.
_INTERVAL: Final = 0.2
#: Seconds that a wait may last before it is spoken of; other transactions end sooner.
_PATIENCE: Final = 1.0
#: Seconds that a statement must have run before it is taken for one that waits.
_SLOW: Final = 0.3
_DEEPEST: Final = 8


class Watcher:
    """Watches one test after another.

    Args:
        sandbox: Knows who waits for whom.
        transcript: Knows what this process executes.
        say: Takes a text for the terminal, from any thread.
    """

    def __init__(self, sandbox: Sandbox, transcript: Transcript, say: Callable[[str], None]) -> None:
        self._sandbox = sandbox
        self._transcript = transcript
        self._say = say
        self._test: str | None = None
        self._told: list[str] = []
        self._first_seen: dict[tuple[int, int | None], float] = {}
        self._reported: set[tuple[int, int | None]] = set()
        self._lock = threading.Lock()
        self._wakened = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chatdify-db watcher", daemon=True)
        self._thread.start()

    def begin(self, test: str) -> None:
        """Watch *test*, if it is not being watched already."""
        with self._lock:
            if self._test == test:
                return
            self._test = test
            self._told = []
            self._first_seen.clear()
            self._reported.clear()
        self._wakened.set()

    def end(self) -> None:
        """Watch no more until the next test begins; returns when no look is under way."""
        with self._lock:
            self._test = None
            self._wakened.clear()

    @property
    def told(self) -> Sequence[str]:
        """What was noticed in the last test."""
        return tuple(self._told)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._wakened.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wakened.wait()
            if self._ended.wait(_INTERVAL):
                return
            with self._lock:
                if self._test is not None:
                    self._look(self._test)

    def _look(self, test: str) -> None:
        try:
            waits = self._sandbox.waits()
        except (SandboxError, ValueError):  # it has ended: the test's end will say so
            self._wakened.clear()
            return
        for wait in waits:
            pair = wait.client, wait.holder
            began = self._first_seen.setdefault(pair, perf_counter())
            running = self._running(wait.client)
            sides = self._sides(wait, running)
            if running is not None and self._is_proven(wait, running, *sides):
                text = waiting.explanation(wait, *sides)
                self._sandbox.end_wait(wait.client, text)
                self._tell(f"chatdify-db: in {test} a wait for a lock that could never end was ended.\n{text}")
            elif pair not in self._reported and perf_counter() - began > _PATIENCE - _INTERVAL:
                self._reported.add(pair)
                text = waiting.report(test, wait, *sides, perf_counter() - began + _INTERVAL)
                self._tell(text)
                self._say(text)

    def _is_proven(self, wait: Wait, running: Running, waits: Side, holds: Side) -> bool:
        # It must have been under way before the server was asked, and must be so still.
        is_stuck = perf_counter() - running.began > _SLOW and self._running(wait.client) is running
        return is_stuck and waiting.is_endless(wait, waits, holds)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.append(text)

    def _sides(self, wait: Wait, running: Running | None) -> tuple[Side, Side]:
        stacks = sys._current_frames()
        waits, holds = Side(), Side()
        if running is not None:
            statement = running.statement
            stack = self._stack(stacks, statement.thread) if running.blocks_thread else ()
            waits = Side(statement, stack, running.blocks_thread)
        latest = None if wait.holder is None else self._transcript.latest_of(wait.holder)
        if latest is not None:
            is_elsewhere = waits.statement is None or latest.thread != waits.statement.thread
            holds = Side(latest, self._stack(stacks, latest.thread) if is_elsewhere else ())
        return waits, holds

    def _running(self, client: int) -> Running | None:
        for running in tuple(self._transcript.running.values()):
            if running.statement.client == client:
                return running
        return None

    def _stack(self, stacks: Mapping[int, FrameType], thread: int) -> Sequence[Line]:
        return self._transcript.callers.stack(stacks.get(thread), _DEEPEST)

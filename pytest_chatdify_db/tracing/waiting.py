"""Who waits for whom in a test, in words; and whether it can be proven that the wait never ends.

Pure: what the server says and what the transcript holds go in, texts come out. The rule for a proof: the thread that
would have to end the transaction is the one that waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_chatdify_db.tracing.statements import Line, Statement, one_line

_WIDEST = 200


class Wait(Protocol):
    """What the server says of a statement that waits for a lock."""

    @property
    def client(self) -> int:
        """The number of the connection that waits."""

    @property
    def holder(self) -> int | None:
        """The number of the one that holds the lock, None if it is no connection to the tests' database."""

    @property
    def state(self) -> str:
        """What the holder is doing."""

    @property
    def name(self) -> str:
        """The holder's application name."""

    @property
    def sql(self) -> str:
        """The holder's last statement."""

    @property
    def waiting_sql(self) -> str:
        """The statement that waits."""

    @property
    def lock(self) -> str:
        """What kind of lock it is."""

    @property
    def is_clients_turn(self) -> bool:
        """Whether the holder's session waits for its own client."""

    @property
    def has_limit(self) -> bool:
        """Whether a timeout of the server may end the wait."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a wait, as far as the process knows it.

    Args:
        statement: Its statement: the one that waits, or the holder's last one; None if no engine executed it.
        stack: The lines of the project that its thread is in, innermost first.
        is_blocked: Whether its thread can do nothing else before the statement has ended.
    """

    statement: Statement | None = None
    stack: Sequence[Line] = ()
    is_blocked: bool = False


def is_endless(wait: Wait, waiting: Side, holding: Side) -> bool:
    """Return whether *wait* can be proven never to end."""
    if waiting.statement is None or holding.statement is None or wait.has_limit:
        return False
    is_idle = wait.state.startswith("idle in transaction")
    return is_idle and waiting.is_blocked and waiting.statement.thread == holding.statement.thread


def explanation(wait: Wait, waiting: Side, holding: Side) -> str:
    """Return why an endless wait is one: the detail of the error that ends it."""
    return "\n".join(
        [
            *_sides(wait, waiting, holding),
            "Both run in one thread, which cannot end the transaction that holds the lock while it waits for it.",
        ]
    )


def report(test: str, wait: Wait, waiting: Side, holding: Side, seconds: float) -> str:
    """Return what is said of a wait that may end.

    Args:
        test: The id of the running test.
        wait: What the server says.
        waiting: Who waits.
        holding: Who holds the lock.
        seconds: How long it has lasted.
    """
    return "\n".join(
        [
            f"chatdify-db: in {test} a statement has waited for {seconds:.1f} s for a lock ({wait.lock or 'unknown'}).",
            *_sides(wait, waiting, holding),
            "To fix this, either:",
            *(f"  - {way}" for way in _ways_out(wait)),
            "  - limit the wait: SET LOCAL lock_timeout = '2s'",
        ]
    )


def _ways_out(wait: Wait) -> list[str]:
    if wait.holder is None:
        return ["end that session's transaction, or connect it with DATABASE_URL, so that it is part of the test"]
    if wait.is_clients_turn and wait.state == "active":
        return ["have that connection end its request: its driver has sent no Sync, or not all data of a COPY"]
    return ["end the transaction that holds the lock before the other statement runs"]


def _sides(wait: Wait, waiting: Side, holding: Side) -> list[str]:
    number = "" if wait.holder is None else f"connection {wait.holder}"
    who_waits = _who(waiting.statement, f"connection {wait.client}", "")
    who_holds = _who(holding.statement, number, wait.name)
    return [
        f"Waits: {who_waits}: {_sql(waiting.statement, wait.waiting_sql)}",
        *_lines(waiting),
        f"Holds the lock: {who_holds}, {_state(wait)}; its last statement: {_sql(holding.statement, wait.sql)}",
        *_lines(holding),
    ]


def _who(statement: Statement | None, number: str, name: str) -> str:
    if not number:
        return "a session that does not come through the sandbox" + (f" ({name})" if name else "")
    if statement is None:
        return number + (f" ({name})" if name else "")
    return f"{statement.actor} ({statement.driver}, {number})"


def _state(wait: Wait) -> str:
    if wait.is_clients_turn and wait.state == "active":
        return "in the middle of a request that its client has not ended"
    return wait.state or "doing what the server does not say"


def _sql(statement: Statement | None, sql: str) -> str:
    return one_line(sql if statement is None else statement.sql, _WIDEST)


def _lines(side: Side) -> list[str]:
    line = side.statement.line if side.statement is not None else None
    lines = list(side.stack)
    if line is not None and line not in lines:
        lines.insert(0, line)
    return [f"  {each}" for each in lines]

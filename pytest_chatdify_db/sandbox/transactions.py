"""What every client believes of transactions, in values: its own, with places to return to, and savepoints behind them.

The rule: nothing here changes anything but itself; ``History`` has them agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from pytest_chatdify_db.sandbox.temporary import NO_TABLES, Tables

Settings = Mapping[str, str]

NO_SETTINGS: Final[Settings] = MappingProxyType({})

#: The SQL around what a read-only transaction does: the mode ends with the savepoint.
READ_ONLY_BEGIN: Final = "SAVEPOINT read_only;SET TRANSACTION READ ONLY"
READ_ONLY_END: Final = "RELEASE read_only"


class Signal(NamedTuple):
    """What a transaction says about a channel (``listen``, ``unlisten``, ``notify``), done when it commits."""

    verb: str
    channel: str
    payload: str = ""


@dataclass(eq=False, slots=True)
class Savepoint:
    """A savepoint of the real transaction.

    Args:
        name: Its name on the server.
        position: How many writes the transaction held when it was set.
        tick: How many changes of any kind it held: writes and cursors.
        settings: The session's settings at that time; a rollback to it brings them back.
        constraints: The SET CONSTRAINTS in force at that time, likewise.
        holders: The levels and frames that would return to it, and whose they are; a frame is nobody's.
        alive: Whether it is still on the server's stack.
    """

    name: str
    position: int
    tick: int
    settings: Settings
    constraints: tuple[str, ...] = ()
    holders: dict[Level | Frame, int | None] = field(default_factory=dict)
    alive: bool = True


@dataclass(eq=False, slots=True)
class Level:
    """A place a client may return to: the start of its transaction, or a savepoint of its own naming.

    Args:
        name: The client's name of it, empty for the start of the transaction.
        settings: What the client had set, to be had again after a return.
        signals: How many the transaction had given by then.
        temporary: The client's temporary tables, as they are again after a return.
        constraints: Its SET CONSTRAINTS, likewise.
        read_only: Whether the transaction might not write.
        tables: What it had written to by then.
        mark: Where that is on the server, once it matters.
    """

    name: str = ""
    settings: tuple[Settings, Settings] = (NO_SETTINGS, NO_SETTINGS)
    signals: int = 0
    # Python 3.11 takes no mapping proxy for a default.
    temporary: Tables = field(default_factory=lambda: NO_TABLES)
    constraints: tuple[str, ...] = ()
    read_only: bool = False
    tables: frozenset[str] = frozenset()
    mark: Savepoint | None = None


@dataclass(eq=False, slots=True)
class Transaction:
    """A client's transaction.

    Args:
        owner: The client.
        implicit: Whether it is the one around a statement outside BEGIN, which ends at the next Sync.
        depth: How many frames were open when it began.
        failed: Whether a statement failed in it, so that only its end or a return is allowed.
        read_only: Whether it may not write.
        isolation: Its level.
        stable_since: How many writes there were when it began, if it is to see no later ones.
        chained: Whether it may not write, and its level, as the one before has left them to it; None if none did.
        executes: Whether a statement has been executed in it.
        defines: Whether one that may have changed definitions has.
        has_snapshot: Whether a query has.
        lost: The frame that ended with it open, and undid it under the client's feet.
        signals: What it has said with LISTEN and NOTIFY.
        tables: The tables that its statements name as what they change.
        constraints: The SET CONSTRAINTS that it has executed.
        levels: Where the client may return to, outermost first.
    """

    owner: int
    implicit: bool = False
    depth: int = 0
    failed: bool = False
    read_only: bool = False
    isolation: str = "read committed"
    stable_since: int | None = None
    chained: tuple[bool, str] | None = None
    executes: bool = False
    defines: bool = False
    has_snapshot: bool = False
    lost: str = ""
    signals: list[Signal] = field(default_factory=list)
    tables: frozenset[str] = frozenset()
    constraints: tuple[str, ...] = ()
    levels: list[Level] = field(default_factory=lambda: [Level()])

    def find(self, name: str) -> int | None:
        """Return the index of the innermost savepoint called *name*, None if there is none."""
        return next((i for i in range(len(self.levels) - 1, 0, -1) if self.levels[i].name == name), None)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rollback that could not be done, since *other* wrote after what *owner* wanted undone.

    Args:
        owner: The client that rolled back.
        other: A client that had written since.
        position: The first write that should be gone and is not.
    """

    owner: int
    other: int
    position: int


@dataclass(eq=False, slots=True)
class Frame:
    """A stretch of the test run that is undone as a whole: a test, or the life of a wider fixture.

    Args:
        name: How messages call it.
        mark: Where it began, None if that is the start of the real transaction.
        temporary: The temporary tables that there were then, by client; they are there again when it ends.
    """

    name: str
    mark: Savepoint | None
    temporary: dict[int, Tables] = field(default_factory=dict)

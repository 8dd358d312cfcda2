"""What several clients of one sandbox should see: a model of the contract, and random programs to try it with.

The rule of the contract: a rollback takes back exactly what its client has written since, and nothing else. Where
another one has written in between that cannot be done, and only there the sandbox may say so. What is not committed
is seen by all, since all share one transaction; what a failed transaction has written is nobody's to rely on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

SAVEPOINTS = ("a", "b")


class Step(NamedTuple):
    """One statement of one client.

    Args:
        client: Who sends it.
        verb: What it does.
        name: The savepoint it names, where it names one.
    """

    client: int
    verb: str
    name: str = ""


_PLAIN = ("write", "write", "write", "fail", "read", "begin", "begin", "commit", "rollback")
_NAMED = ("savepoint", "savepoint", "rollback_to", "release")


def programs(clients: int = 4, longest: int = 40) -> st.SearchStrategy[list[Step]]:
    """Return a strategy for programs of up to *clients* clients and *longest* statements."""
    client = st.integers(1, clients)
    plain = st.builds(Step, client, st.sampled_from(_PLAIN))
    named = st.builds(Step, client, st.sampled_from(_NAMED), st.sampled_from(SAVEPOINTS))
    return st.lists(st.one_of(plain, named), max_size=longest)


@dataclass
class Block:
    """A client's transaction: its savepoints, each with the number of rows that existed when it was set."""

    begun_at: int
    savepoints: list[tuple[str, int]] = field(default_factory=list)
    failed: bool = False

    def find(self, name: str) -> int | None:
        """Return the index of the innermost savepoint called *name*."""
        return next((i for i in reversed(range(len(self.savepoints))) if self.savepoints[i][0] == name), None)


class Model:
    """The rows that should be there; rows are numbered in the order they are written."""

    def __init__(self) -> None:
        self.writers: dict[int, int] = {}
        self.blocks: dict[int, Block] = {}
        self.next_row = 1
        self.may_conflict = False

    def take(self, step: Step) -> str:
        """Follow *step*; return the transaction status that its client is told: ``I``, ``T`` or ``E``."""
        block = self.blocks.get(step.client)
        if step.verb in {"write", "fail", "read"}:
            self._run(step, block)
        elif step.verb == "begin":
            self.blocks.setdefault(step.client, Block(self.next_row))
        elif step.verb in {"commit", "rollback"}:
            if block is not None and (step.verb == "rollback" or block.failed):
                self._take_back(step.client, block.begun_at)
            self.blocks.pop(step.client, None)
        elif block is not None:
            self._savepoint(step, block)
        block = self.blocks.get(step.client)
        return "I" if block is None else "E" if block.failed else "T"

    def _run(self, step: Step, block: Block | None) -> None:
        if step.verb == "fail" and block is not None:
            block.failed = True
        elif step.verb == "write":
            if block is None or not block.failed:
                self.writers[self.next_row] = step.client
            self.next_row += 1

    def _savepoint(self, step: Step, block: Block) -> None:
        index = block.find(step.name)
        if step.verb == "savepoint" and not block.failed:
            block.savepoints.append((step.name, self.next_row))
        elif step.verb == "rollback_to" and index is not None:
            self._take_back(step.client, block.savepoints[index][1])
            del block.savepoints[index + 1 :]
            block.failed = False
        elif step.verb == "release" and index is not None and not block.failed:
            del block.savepoints[index:]
        elif step.verb != "savepoint":
            block.failed = True

    def _take_back(self, client: int, since: int) -> None:
        undone = [row for row, writer in self.writers.items() if writer == client and row >= since]
        if undone and any(row > undone[0] and writer != client for row, writer in self.writers.items()):
            self.may_conflict = True
        for row in undone:
            del self.writers[row]

    def disagrees(self, rows: set[int]) -> set[int]:
        """Return the rows about which *rows*, those that are really there, are wrong."""
        wrong = rows ^ set(self.writers)
        return {row for row in wrong if not self._is_open_to_doubt(row)}

    def _is_open_to_doubt(self, row: int) -> bool:
        block = self.blocks.get(self.writers.get(row, 0))
        return block is not None and block.failed and row >= block.begun_at

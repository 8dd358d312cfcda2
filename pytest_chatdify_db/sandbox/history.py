"""The history of the transaction that is really open: what its clients wrote, told as savepoints of it.

The rule: a savepoint is set where it is first needed, not where a client asked for one, and it *floats*. As long as a
client has written nothing since its savepoint there is nothing to undo, so the savepoint may be forgotten and set
again on top of what others wrote meanwhile. Only a rollback that would also undo another client's later writes cannot
be told this way; it leaves a ``Conflict``. Pure: the methods note the SQL to send in ``sql``.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_chatdify_db.sandbox.transactions import (
    NO_SETTINGS,
    Conflict,
    Frame,
    Level,
    Savepoint,
    Settings,
    Transaction,
)


class History:
    """The writes of the open transaction, who made them, and the savepoints between them."""

    def __init__(self) -> None:
        self.sql: list[str] = []
        self.stack: list[Savepoint] = []
        self.frames: list[Frame] = []
        self.conflict: Conflict | None = None
        self.settings: Settings = NO_SETTINGS
        self.constraints: tuple[str, ...] = ()
        self.cursors: dict[int, int] = {}  # the last tick at which a client opened a cursor that may still be open
        self.clock = 0
        self.is_redefined = True  # since the catalog was read
        self.has_unchecked = False  # what was checked at a COMMIT, and waits again since a rollback
        self._definitions: list[int] = []  # how many writes there were after each of them
        self._stable: list[Transaction] = []  # those that are to see no later writes
        self._is_open = False
        self._tick = 0
        self._serial = 0
        self._checked = 0  # the tick of the last check
        self.acts: dict[str, int] = {}  # SQL that waits until cursors that read its tables are closed, and for whom
        self._runs: list[tuple[int, int]] = []  # (position of its first write, owner); neighbours differ in owner

    @property
    def has_something_to_say(self) -> bool:
        """Whether SQL is to be sent before anything else, or a conflict to be told of."""
        return bool(self.sql or self.acts) or not self._is_open or self.conflict is not None

    def take_sql(self) -> str:
        """Return the SQL noted since the last call, to be sent before anything else."""
        if not self._is_open:
            # BEGIN goes out with the first statement: so now() is never older than the test that asks for it.
            self.sql.insert(1 if self.sql[:1] == ["ROLLBACK"] else 0, "BEGIN")
            self._is_open = True
        return self._take()

    def take_rollback(self) -> str:
        """Return the SQL that a pop noted; the transaction is begun again when it is needed."""
        return self._take() if self._is_open or self.sql[:1] == ["ROLLBACK"] else ""

    def _take(self) -> str:
        text = ";".join(self.sql)
        self.sql.clear()
        return text

    # -- What was written, and by whom

    def wrote(self, owner: int) -> None:
        """Note that *owner* has (or may have) changed data."""
        if not self._runs or self._runs[-1][1] != owner:
            self._runs.append((self.clock, owner))
        self.clock += 1
        self._tick += 1

    def defined(self) -> None:
        """Note that the last write may have changed definitions."""
        self._definitions.append(self.clock)
        self.is_redefined = True

    def checked(self) -> None:
        """Note that what waited for a COMMIT was checked; a return to an earlier savepoint has it wait again."""
        self._tick += 1
        self._checked = self._tick

    def opened_cursor(self, owner: int) -> int:
        """Note that *owner* has opened a cursor, which a return to an earlier savepoint would close; return when."""
        self._tick += 1
        self.cursors[owner] = self._tick
        return self._tick

    def closed_cursors(self, owner: int) -> None:
        """Note that none of *owner*'s cursors is open any more."""
        self.cursors.pop(owner, None)

    def other_after(self, position: int, owner: int) -> int | None:
        """Return the last client other than *owner* that has written since *position*, None if there is none."""
        return next((who for who in self._writers_after(position) if who != owner), None)

    def own_after(self, position: int, owner: int) -> bool:
        """Return whether *owner* has written since *position*."""
        return owner in self._writers_after(position)

    def _writers_after(self, position: int) -> Iterator[int]:
        end = self.clock
        for start, who in reversed(self._runs):
            if end <= position:
                return
            yield who
            end = start

    # -- Savepoints of the real transaction

    def guard(self) -> Savepoint:
        """Return a savepoint after which nothing has happened yet."""
        top = self.stack[-1] if self.stack else None
        if top is not None and top.tick == self._tick:
            return top
        self.forget()
        self._serial += 1
        savepoint = Savepoint(f"s{self._serial}", self.clock, self._tick, self.settings, self.constraints)
        self.stack.append(savepoint)
        self.sql.append(f"SAVEPOINT {savepoint.name}")
        return savepoint

    def forget(self) -> None:
        """Release the savepoints on top of the stack that nobody needs: whoever has not written since may float."""
        keep = len(self.stack)
        while keep and not self._is_needed(self.stack[keep - 1]):
            keep -= 1
        if keep < len(self.stack):
            self.sql.append(f"RELEASE {self.stack[keep].name}")
            self._drop(keep)

    def _is_needed(self, savepoint: Savepoint) -> bool:
        return any(owner is None or self.own_after(savepoint.position, owner) for owner in savepoint.holders.values())

    def return_to(self, savepoint: Savepoint) -> None:
        """Undo everything since *savepoint*, whoever did it."""
        if self._is_open:
            self.sql.append(f"ROLLBACK TO {savepoint.name}")
        self._drop(self.stack.index(savepoint) + 1)
        self.has_unchecked |= savepoint.tick < self._checked
        self.clock, self.settings = savepoint.position, savepoint.settings
        self.constraints = savepoint.constraints
        for transaction in self._stable:
            transaction.stable_since = min(transaction.stable_since or 0, self.clock)  # positions are used again
        savepoint.tick = self._tick
        while self._runs and self._runs[-1][0] >= self.clock:
            self._runs.pop()
        while self._definitions and self._definitions[-1] > self.clock:
            self._definitions.pop()
            self.is_redefined = True
        for frame in self.frames:
            if frame.mark is not None and not frame.mark.alive:  # what was undone had begun before the frame
                _hold(frame, savepoint, None)

    def _drop(self, keep: int) -> None:
        for savepoint in self.stack[keep:]:
            savepoint.alive = False
        del self.stack[keep:]

    # -- A client's transaction

    def protect(self, transaction: Transaction) -> Savepoint:
        """Return the savepoint to return to should the client's next statement fail."""
        if (last := self.guard_of(transaction)) is not None:
            return last
        owner, guard = transaction.owner, self.guard()
        for level in reversed(transaction.levels):
            mark = _standing(level)
            if mark is not None and self.own_after(mark.position, owner):
                break
            _hold(level, guard, owner)
        return guard

    def guard_of(self, transaction: Transaction) -> Savepoint | None:
        """Return the savepoint that the client's last statement left for the next, None if there is none."""
        mark = _standing(transaction.levels[-1])
        return mark if mark is not None and self._is_last(mark, transaction.owner) else None

    def _is_last(self, mark: Savepoint, owner: int) -> bool:
        if mark.tick == self._tick:
            return True  # nothing has happened since
        foreign_cursor = max((tick for who, tick in self.cursors.items() if who != owner), default=0)
        return foreign_cursor <= mark.tick and self.other_after(mark.position, owner) is None

    def take_snapshot(self, transaction: Transaction, *, is_stable: bool) -> None:
        """Note whether *transaction* is to see nothing that is written from now on."""
        transaction.stable_since = self.clock if is_stable else None
        self._stable = [each for each in self._stable if each is not transaction]
        self._stable += [transaction] if is_stable else []

    def leave(self, transaction: Transaction, index: int) -> None:
        """Forget the client's savepoints from *index* on; what was written there stays."""
        if not index and transaction.stable_since is not None:
            self.take_snapshot(transaction, is_stable=False)
        for level in transaction.levels[index:]:
            _hold(level, None, None)
        del transaction.levels[index:]

    def undo(self, transaction: Transaction, index: int = 0) -> int | None:
        """Undo what the client has written since level *index*, and return there.

        Returns:
            The tick since which all cursors are closed, whoever opened them; None if nothing was undone.
        """
        owner, level = transaction.owner, transaction.levels[index]
        mark, since = _standing(level), None
        if mark is not None and self.own_after(mark.position, owner):
            other = self.other_after(mark.position, owner)
            if other is None:
                since = mark.tick
                self.return_to(mark)
                for frame in self.frames:
                    if frame.mark is mark:  # what was undone had begun before the frame
                        frame.temporary[owner] = level.temporary
            elif self.conflict is None:
                self.conflict = Conflict(owner, other, mark.position)
        self.leave(transaction, index + 1)
        return since

    # -- Frames

    @property
    def place(self) -> str:
        """The test or fixture whose frame is the innermost; empty if there is none."""
        return self.frames[-1].name if self.frames else ""

    @property
    def wrote_in_frame(self) -> bool:
        """Whether anything has been written since the innermost frame was opened."""
        mark = self.frames[-1].mark if self.frames else None
        return self.clock > (mark.position if mark else 0)

    def push(self, name: str) -> Frame:
        """Open a frame: all that follows is undone by its pop."""
        frame = Frame(name, None)
        if self.frames or self.clock:
            self._tick += self._is_open  # a savepoint of its own, whatever was done unseen since the last one
            _hold(frame, self.guard(), None)
        self.frames.append(frame)
        return frame

    def pop(self) -> Frame:
        """Undo all that happened since the matching push."""
        frame = self.frames.pop()
        self.acts.clear()
        if frame.mark is None:
            self._restart()
        else:
            self.return_to(frame.mark)
            if self.conflict is not None and self.conflict.position >= frame.mark.position:
                self.conflict = None
            _hold(frame, None, None)
        return frame

    def dissolve(self) -> None:
        """Close the innermost frame, in which nothing was written, and undo nothing."""
        _hold(self.frames.pop(), None, None)

    def _restart(self) -> None:
        self._drop(0)
        self._runs.clear()
        self.is_redefined |= bool(self._definitions)
        self._definitions.clear()
        self.cursors.clear()
        self.clock = 0
        self.has_unchecked = False
        self.settings, self.constraints, self.conflict = NO_SETTINGS, (), None
        self.sql[:] = ["ROLLBACK"] if self._is_open else []
        self._is_open = False


def _standing(level: Level) -> Savepoint | None:
    return level.mark if level.mark is not None and level.mark.alive else None


def _hold(place: Level | Frame, savepoint: Savepoint | None, owner: int | None) -> None:
    if place.mark is not None:
        place.mark.holders.pop(place, None)
    place.mark = savepoint
    if savepoint is not None:
        savepoint.holders[place] = owner

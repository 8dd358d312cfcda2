"""The model of transactions against a stack of savepoints as PostgreSQL keeps it, in random programs and by example."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_chatdify_db.sandbox.history import History
from pytest_chatdify_db.sandbox.transactions import Conflict, Level, Transaction
from tests.interleavings import Model, Step, programs

MAX_STACK = 40


@dataclass
class Server:
    """A transaction as PostgreSQL keeps it: rows, and savepoints that remember how many there were."""

    rows: list[int] = field(default_factory=list)
    savepoints: list[tuple[str, int]] = field(default_factory=list)
    is_open: bool = False

    def execute(self, sql: str) -> None:
        """Execute what a history has noted; a savepoint that does not exist is a KeyError."""
        for statement in filter(None, sql.split(";")):
            if statement == "BEGIN":
                assert not self.is_open
                self.is_open = True
            else:
                assert self.is_open
                self._execute(*statement.rsplit(maxsplit=1))

    def _execute(self, verb: str, name: str = "") -> None:
        if verb == "ROLLBACK":
            self.rows, self.savepoints, self.is_open = [], [], False
        elif verb == "SAVEPOINT":
            self.savepoints.append((name, len(self.rows)))
        else:
            index = dict(zip((n for n, _ in self.savepoints), range(len(self.savepoints)), strict=True))[name]
            if verb == "ROLLBACK TO":
                del self.rows[self.savepoints[index][1] :]
            else:
                assert verb == "RELEASE"
            del self.savepoints[index + (verb == "ROLLBACK TO") :]


class Bench:
    """A history, a server, and clients that use them as a shared session does."""

    def __init__(self) -> None:
        self.history = History()
        self.server = Server()
        self.transactions: dict[int, Transaction] = {}
        self.next_row = 1

    def take(self, step: Step) -> None:
        """Do one step."""
        transaction = self.transactions.get(step.client)
        if step.verb in {"write", "fail", "read"}:
            self._run(step, transaction)
        elif step.verb == "begin":
            self.transactions.setdefault(step.client, self.begun(step.client))
        elif transaction is None:
            return
        elif step.verb in {"commit", "rollback"}:
            if (step.verb == "rollback" or transaction.failed) and not transaction.lost:
                self.history.undo(transaction)
            self.history.leave(transaction, 0)
            del self.transactions[step.client]
        else:
            self._savepoint(step, transaction)

    def begun(self, client: int) -> Transaction:
        """Return a new transaction."""
        return Transaction(client, depth=len(self.history.frames))

    def _run(self, step: Step, begun: Transaction | None) -> None:
        row = self.next_row
        self.next_row += step.verb == "write"
        if begun is not None and begun.failed:
            return
        transaction = begun or self.begun(step.client)
        guard = self.history.protect(transaction)
        self.server.execute(self.history.take_sql())
        if step.verb == "fail":
            self.history.return_to(guard)
            transaction.failed = True
            if begun is None:
                self.history.undo(transaction)
        elif step.verb == "write":
            self.server.rows.append(row)
            self.history.wrote(step.client)
        if begun is None:
            self.history.leave(transaction, 0)

    def _savepoint(self, step: Step, transaction: Transaction) -> None:
        index = transaction.find(step.name)
        if transaction.lost or (transaction.failed and step.verb != "rollback_to"):
            return
        if step.verb == "savepoint":
            transaction.levels.append(Level(step.name))
        elif index is None:
            transaction.failed = True
        elif step.verb == "release":
            self.history.leave(transaction, index)
        else:
            self.history.undo(transaction, index)
            transaction.failed = False

    def push(self) -> None:
        """Open a frame."""
        self.history.push(f"frame {len(self.history.frames)}")

    def pop(self) -> None:
        """End the innermost frame."""
        frame = self.history.pop()
        for transaction in self.transactions.values():
            if transaction.depth > len(self.history.frames):
                transaction.failed, transaction.lost = True, frame.name
        self.server.execute(self.history.take_rollback())

    @property
    def rows(self) -> set[int]:
        """The rows that a read would find."""
        self.history.guard()
        self.server.execute(self.history.take_sql())
        return set(self.server.rows)


def run(*steps: tuple[int, str] | tuple[int, str, str]) -> Bench:
    """Return a bench that *steps* were done on, in one frame."""
    bench = Bench()
    bench.push()
    for step in steps:
        bench.take(Step(*step))
    return bench


@settings(max_examples=300, deadline=None)
@given(programs())
def test_a_rollback_undoes_its_clients_writes_and_nothing_else(program: list[Step]) -> None:
    """Any program leaves the rows of the contract, or a conflict where the contract allows one."""
    bench, model = Bench(), Model()
    bench.push()
    for step in program:
        bench.take(step)
        model.take(step)
        if bench.history.conflict is not None:
            assert model.may_conflict
            break
        assert not model.disagrees(bench.rows)
    bench.pop()

    assert bench.rows == set()
    assert bench.history.conflict is None


@settings(max_examples=200, deadline=None)
@given(st.lists(programs(clients=3, longest=15), max_size=4), st.data())
def test_frames_undo_what_happened_in_them(parts: list[list[Step]], data: st.DataObject) -> None:
    """Frames end innermost first, and each brings back what was there before it, but for what was rolled back since."""
    bench = Bench()
    before: list[set[int]] = []
    for part in parts:
        before.append(set(bench.server.rows))
        bench.push()
        for step in part:
            bench.take(step)
    while before:
        if data.draw(st.booleans()):
            bench.take(Step(data.draw(st.integers(1, 3)), "rollback"))
        bench.pop()

        assert set(bench.server.rows) <= before.pop()


@settings(max_examples=50, deadline=None)
@given(programs(clients=4, longest=12).filter(bool))
def test_the_stack_of_savepoints_does_not_grow(program: list[Step]) -> None:
    """However often clients do the same again, the server holds only so many savepoints."""
    bench = run()
    for _ in range(15):
        for step in program:
            if step.verb != "savepoint":
                bench.take(step)

    stack = bench.history.stack
    bench.server.execute(bench.history.take_sql())

    assert len(stack) <= MAX_STACK
    assert [name for name, _ in bench.server.savepoints] == [savepoint.name for savepoint in stack]


def test_readers_leave_no_savepoints_behind() -> None:
    """Two open transactions that read in turn, between a third client's writes, cost no more as time goes on."""
    bench = run((1, "begin"), (2, "begin"))
    for _ in range(50):
        for step in (Step(1, "read"), Step(3, "write"), Step(2, "read"), Step(3, "write")):
            bench.take(step)

    assert len(bench.history.stack) <= 3


def test_a_reader_has_nothing_to_undo() -> None:
    """The rollback of a transaction that only read leaves what others committed meanwhile."""
    bench = run((1, "begin"), (1, "read"), (2, "write"), (1, "read"), (1, "rollback"))

    assert bench.rows == {1}
    assert bench.history.conflict is None


def test_a_writer_may_follow_a_foreign_write() -> None:
    """What a client writes on top of another one's rows is undone alone."""
    bench = run((1, "begin"), (1, "read"), (2, "write"), (1, "write"), (1, "rollback"))

    assert bench.rows == {1}


def test_a_rollback_under_foreign_writes_is_a_conflict() -> None:
    """It names who rolled back, who had written since, and where."""
    bench = run((1, "begin"), (1, "write"), (2, "write"), (1, "rollback"))

    assert bench.history.conflict == Conflict(1, 2, 0)
    assert bench.rows == {1, 2}


def test_the_first_conflict_counts() -> None:
    """A second one does not take its place."""
    bench = run((1, "begin"), (2, "begin"), (1, "write"), (2, "write"), (3, "write"), (1, "rollback"), (2, "rollback"))

    assert bench.history.conflict == Conflict(1, 3, 0)


def test_a_failed_statement_is_undone_alone_under_foreign_writes() -> None:
    """An error of a client that wrote before another one did undoes neither's earlier rows."""
    bench = run((1, "begin"), (1, "write"), (2, "write"), (1, "savepoint", "a"), (1, "fail"), (1, "rollback_to", "a"))

    assert bench.rows == {1, 2}
    assert bench.history.conflict is None


def test_reads_in_a_row_cost_no_savepoints() -> None:
    """A guard after which nothing has happened is used again, by whoever it is."""
    bench = run((1, "write"), (1, "read"))
    bench.take(Step(1, "read"))
    bench.take(Step(2, "read"))

    assert bench.history.sql == []
    assert len(bench.history.stack) == 1


def test_a_foreign_cursor_survives_an_error() -> None:
    """The guard lies above a cursor that another client has opened since."""
    bench = run((1, "begin"), (1, "write"))
    mark = bench.history.stack[-1]
    bench.history.opened_cursor(2)
    guard = bench.history.protect(bench.transactions[1])

    assert guard is not mark

    bench.history.return_to(guard)
    bench.history.closed_cursors(2)

    assert bench.history.protect(bench.transactions[1]) is mark


def test_a_rollback_may_reach_below_the_frame_it_is_in() -> None:
    """A transaction of a wider scope is rolled back in a test: the test's end undoes the rest all the same."""
    bench = run((1, "begin"), (1, "write"))
    bench.push()
    bench.take(Step(1, "write"))
    bench.take(Step(1, "rollback"))
    bench.take(Step(2, "write"))
    bench.pop()

    assert bench.rows == set()
    assert not bench.history.wrote_in_frame


def test_a_conflict_ends_with_the_frame_that_undoes_both_sides() -> None:
    """In the frame below it, it would still be wrong to read on if what should be gone lies there."""
    bench = run((1, "begin"), (1, "write"))
    bench.push()
    bench.take(Step(2, "write"))
    bench.take(Step(1, "rollback"))
    bench.pop()

    assert bench.history.conflict == Conflict(1, 2, 0)

    bench.pop()

    assert bench.history.conflict is None


def test_a_conflict_ends_with_a_frame_above_others() -> None:
    """All that it was about is undone, and what lies below was never in doubt."""
    bench = run((3, "write"))
    bench.push()
    for step in (Step(1, "begin"), Step(1, "write"), Step(2, "write"), Step(1, "rollback")):
        bench.take(step)

    assert bench.history.conflict is not None

    bench.pop()

    assert bench.history.conflict is None
    assert bench.rows == {1}


def test_a_transaction_that_outlives_its_frame_is_lost() -> None:
    """Its rollback does nothing any more."""
    bench = run()
    bench.push()
    bench.take(Step(1, "begin"))
    bench.take(Step(1, "write"))
    bench.pop()
    bench.take(Step(2, "write"))
    bench.take(Step(1, "rollback"))

    assert bench.rows == {2}


def test_a_frame_knows_whether_anything_was_written_in_it() -> None:
    """What was written before it does not count."""
    bench = run((1, "write"))
    bench.push()

    assert not bench.history.wrote_in_frame

    bench.take(Step(1, "write"))

    assert bench.history.wrote_in_frame


def test_the_transaction_begins_with_the_first_statement() -> None:
    """Not when the frame before it ends: its time would be that test's."""
    bench = run((1, "write"))
    bench.pop()

    assert not bench.server.is_open
    assert bench.history.take_sql() == "BEGIN"


def test_frames_without_statements_cost_nothing() -> None:
    """No SQL is noted for them."""
    bench = Bench()
    bench.push()
    for _ in range(3):
        bench.push()
        bench.history.pop()
        assert bench.history.take_rollback() == ""

    assert bench.history.take_sql() == "BEGIN;SAVEPOINT s1"

    bench.history.pop()

    assert bench.history.take_rollback() == "ROLLBACK"
    assert not History().wrote_in_frame


def test_what_undoes_a_definition_makes_the_catalog_stale() -> None:
    """A rollback, and the end of a frame, those in which it was not read anew included; nothing else."""
    history = History()
    history.push("module")
    for name in ("first", "second"):
        history.push(name)
        transaction = Transaction(1)
        history.protect(transaction)
        history.wrote(1)
        history.is_redefined = False
        if name == "second":
            history.defined()
        assert history.is_redefined is (name == "second")
        history.is_redefined = False
        history.undo(transaction)
        assert history.is_redefined is (name == "second")
        history.is_redefined = False
        history.pop()
        assert not history.is_redefined
    history.wrote(1)
    history.defined()
    history.is_redefined = False
    history.push("third")
    history.pop()
    assert not history.is_redefined
    history.pop()
    assert history.is_redefined

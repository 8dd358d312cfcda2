"""What was started, and the turn of a test on it: what it writes is undone at its end, what it leaves is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from pytest_chatdify_db.markers import DatabaseMark
from pytest_chatdify_db.mistakes.connections import IsolationLost, SandboxGone
from pytest_chatdify_db.scopes import Frame, FrameStack
from pytest_chatdify_db.settings import Isolation, Options

if TYPE_CHECKING:
    from pytest_chatdify_db.databases.keeping import Keeping
    from pytest_chatdify_db.databases.own_databases import OwnDatabases
    from pytest_chatdify_db.databases.sequences import Sequences
    from pytest_chatdify_db.postgres.address import Address
    from pytest_chatdify_db.sandbox.handle import FrameReport, Sandbox
    from pytest_chatdify_db.sandbox.reports import Executed
    from pytest_chatdify_db.servers.base import Server
    from pytest_chatdify_db.servers.run import Run
    from pytest_chatdify_db.tracing.checkouts import Checkouts
    from pytest_chatdify_db.tracing.findings import Finding
    from pytest_chatdify_db.tracing.transcript import Transcript
    from pytest_chatdify_db.tracing.watcher import Watcher


@dataclass(slots=True)
class Turn:
    """The test that is running.

    Args:
        test: Its id.
        isolation: How its work is undone.
        frame: Its frame in the sandbox's transaction.
        database: Its own database, if it has one.
    """

    test: str
    isolation: Isolation
    frame: Frame
    database: Address | None = None


@dataclass(eq=False, slots=True)
class Running:
    """What was started, and the turn that a test has on it.

    Args:
        server: The PostgreSQL server.
        template: The name of the database that others are copies of.
        sandbox: What clients connect to.
        address: Where they reach it.
        run: The run.
        worker: The name of the process.
        options: What was asked for.
        new_name: Returns a name for another database.
        own_databases: Databases for tests that have one of their own.
        checkouts: What the running test has taken out of connection pools.
        transcript: What its engines have executed.
        watcher: Tells what a statement of it waits for.
        keeping: Keeps the databases of failed tests, where that was asked for.
        frames: Whose rows live how long in the sandbox's transaction.
        turn: The turn of the running test; None between two tests.
    """

    server: Server
    template: str
    sandbox: Sandbox
    address: Address
    run: Run
    worker: str
    options: Options
    new_name: Callable[[], str]
    own_databases: OwnDatabases
    checkouts: Checkouts
    transcript: Transcript
    watcher: Watcher
    keeping: Keeping | None
    frames: FrameStack
    turn: Turn | None = None
    _sequences: Sequences | None = None
    _left_open: set[str] = field(default_factory=set)

    def open_turn(self, test: str, mark: DatabaseMark | None) -> None:
        """Begin the turn of *test*: whatever is written until `close_turn` is undone there."""
        mark = mark or DatabaseMark()
        turn = Turn(test, mark.isolation or self.options.isolation, Frame(test, "function"))
        frames = self.frames
        if turn.isolation == "database":
            turn.database = self.own_databases.take(test, frames.fixtures)
        with sandbox_failures():
            frames.push(turn.frame)
            self.turn = turn
            if turn.database is not None:
                self.sandbox.use_database(turn.database)
        self.watcher.begin(test)
        if mark.reset_sequences:
            self._reset_sequences(turn)

    def _reset_sequences(self, turn: Turn) -> None:
        if self._sequences is None:
            from pytest_chatdify_db.databases import sequences, templates

            fresh = templates.clone(self.server, self.template, self.new_name())
            self._sequences = sequences.Sequences(sequences.Baseline.read(fresh))
            templates.drop(self.server, fresh.database)
        # Past the sandbox where it can be, which would take the database for one that the test has changed.
        self._sequences.restore(turn.database or self.address, self.frames.fixtures)

    def close_turn(self) -> list[Finding]:
        """End the turn of the running test and undo what it wrote; return what was noticed in it.

        Raises:
            SandboxGone: It has ended or does not answer.
            IsolationLost: The test has left its transaction by a way that cannot be followed.
        """
        if self.turn is None:
            return []
        from pytest_chatdify_db.tracing.findings import findings, unreturned

        turn, self.turn = self.turn, None
        noticed: list[Finding] = []
        in_transaction: tuple[str, ...] = ()
        with sandbox_failures():
            if turn.database is not None:
                own = self.sandbox.use_database(None, turn.test)
                noticed += findings(turn.test, own, self.options, self.transcript)
                in_transaction = own.clients_in_transaction
                if self.keeping is None or not self.keeping.takes(turn.database):
                    self.own_databases.give_back(turn.database, changed=bool(own.wrote))
            # What a connection does that is out of its pool, the sandbox may not have heard yet.
            out = self.checkouts.left()
            report = cast("FrameReport", self.frames.close(turn.frame, waits=bool(out)))
        if report.lost:
            lost = IsolationLost.by if report.has_escaped else IsolationLost.with_session
            raise lost(turn.test, report.lost)
        in_transaction += report.clients_in_transaction
        noticed += findings(turn.test, self._without_known_leaks(report), self.options, self.transcript)
        noticed += unreturned(turn.test, out, in_transaction, self.options.leaks)
        return noticed

    def keep_database(self) -> str:
        """Keep the running test's database if that was asked for; return what its report says about it."""
        if self.keeping is None or self.turn is None:
            return ""
        return self.keeping.keep(self.turn.test, self.turn.database)

    def executed_elsewhere(self) -> list[Executed]:
        """Return what connections have executed in the running test that are of no engine of this process."""
        from pytest_chatdify_db.sandbox.dirty import TEST_APPLICATION

        known = {statement.client for statement in self.transcript.statements}
        found: list[Executed] = []
        with suppress(SandboxGone), sandbox_failures():  # the end of the test will tell of it
            found = self.sandbox.executed()
        strangers = [each for each in found if each.client not in known]
        return [each for each in strangers if not each.application.startswith(TEST_APPLICATION)]

    def plans(self) -> str:
        """Return the plans of the running test's slowest statements."""
        from pytest_chatdify_db.tracing import explain

        return explain.section(tuple(self.transcript.statements), self.address, self.options.mask)

    @property
    def psql(self) -> str:
        """The command that joins the running test's transaction, or opens its own database."""
        from pytest_chatdify_db.databases import psql

        address = self.address
        return psql.command(address, psql.write_passfile(self.run, f"{self.worker}.pgpass", address))

    def know_leaks(self, report: FrameReport) -> None:
        """Take note of connections that a fixture, not a test, keeps in a transaction."""
        self._left_open |= {_connection(client) for client in report.clients_in_transaction}

    def _without_known_leaks(self, report: FrameReport) -> FrameReport:
        """Return *report* with those connections only that were in no transaction when the test before ended."""
        clients = report.clients_in_transaction
        new = tuple(client for client in clients if _connection(client) not in self._left_open)
        self._left_open = {_connection(client) for client in clients}
        return replace(report, clients_in_transaction=new)


def _connection(client: str) -> str:
    """Return the part of a client's description that stays the same: its number and name."""
    return client.partition(",")[0]


@contextmanager
def sandbox_failures() -> Iterator[None]:
    """Turn what the sandbox says into an error that tells a user what to do."""
    from pytest_chatdify_db.sandbox.handle import SandboxError, ServerGone

    try:
        yield
    except ServerGone as error:
        raise SandboxGone.with_server(str(error)) from error
    except SandboxError as error:
        raise SandboxGone.said(str(error)) from error

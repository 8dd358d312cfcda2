"""The sandbox without its sockets: who is connected, who is served next, what the test run asks for.

The rule: all work on the shared session stands in one queue, a client's unit and a test's end alike, and each is done
before the next begins. Whoever moves the bytes calls ``run`` after every event.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import at_once, leftovers, login, refusals, service
from pytest_chatdify_db.sandbox.backend import Backend, Exchange
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.frames import end_frame, renumber, roll_back_frame
from pytest_chatdify_db.sandbox.greeting import greet
from pytest_chatdify_db.sandbox.journal import Journal
from pytest_chatdify_db.sandbox.login import Identity, Refused
from pytest_chatdify_db.sandbox.messages import Store
from pytest_chatdify_db.sandbox.reports import Leftover
from pytest_chatdify_db.sandbox.server_session import Broken
from pytest_chatdify_db.sandbox.session import SharedSession
from pytest_chatdify_db.sandbox.transactions import Transaction

Job = Generator[Exchange, None, Any]


class Outside(Protocol):
    """What the core needs of whoever moves its bytes."""

    def open_direct(self, client: Client) -> DirectSession:
        """Open a session of the client's own; raises ``Unavailable``."""

    def ask_direct(self, client: Client, sql: str) -> list[str]:
        """Return what *sql* yields in the client's own session, which is idle; nothing if it does not answer."""

    def close_direct(self, client: Client) -> None:
        """Close it."""

    def cancel(self, client: Client) -> None:
        """Ask the server to cancel what it does for *client*, and wait until it has heard."""

    def random(self, length: int) -> bytes:
        """Return random bytes."""

    def new_store(self) -> Store:
        """Return a place for the data of a COPY."""


class Unavailable(Exception):
    """A session cannot be had; the text says why."""


@dataclass(slots=True)
class Task:
    """Work in the queue: for a client, or for the test run, which is told the result."""

    job: Callable[[], Job]
    client: Client | None = None
    done: Callable[[Any], None] | None = None


class Core:
    """The sandbox."""

    def __init__(self, identity: Identity, outside: Outside, reported: dict[str, str]) -> None:
        self.identity = identity
        self.outside = outside
        self.backend = Backend(reported, self._notified)
        self.session = SharedSession(self.backend)
        self.is_direct = False
        self.broken = ""
        self.after_loss = ""
        self._direct: dict[int, DirectSession] = {}
        self._changed = False  # by a client that had a session of its own and is gone
        self._queue: deque[Task] = deque()
        self._queued: set[int] = set()
        self._job: Job | None = None
        self._task: Task | None = None
        self._to_cancel: Client | None = None  # once its own statement runs
        self._last_number = 0
        self.journal = Journal()
        self._listening: list[dict[int, frozenset[str]]] = []  # who listened to what when each frame began
        self._aside: list[dict[int, frozenset[str]]] = []  # the same, of frames that are to come back

    # -- Connections

    def connected(self) -> Client:
        """Take a new connection."""
        self._last_number += 1
        return Client(self._last_number, self.outside.random(4), self.journal, new_store=self.outside.new_store)

    def received(self, client: Client, data: bytes) -> None:
        """Take bytes of a client."""
        client.feed(data)
        try:
            while client.stage is Stage.STARTING and (packet := client.take_first_packet()) is not None:
                self._introduce(client, packet)
            if client.stage is Stage.IDENTIFYING and (password := client.take_password()) is not None:
                login.identify(client, password, self.identity)
                self._let_in(client)
            if client.stage is Stage.READY:
                client.cut()
        except wire.ProtocolViolation as problem:
            self._refuse(client, Refused("08P01", str(problem)))
        except OSError as problem:
            text = f"the data of COPY cannot be kept until there is all of it: {problem}"
            self._refuse(client, Refused("53100", text))
        except Refused as refusal:
            self._refuse(client, refusal)
        self._enqueue(client)

    def closed(self, client: Client) -> None:
        """Note that a client has gone."""
        self._drop(client)
        if client.number in self.session.clients and not self.broken:
            self._queue.append(Task(lambda: self._forget(client)))

    def hung_up(self, client: Client) -> None:
        """Note that a client sends no more; what it has sent is still done and answered."""
        client.stage = Stage.ENDED
        self._enqueue(client)

    def direct_ended(self, client: Client) -> None:
        """Note that the client's own session has ended, and the client's connection with it."""
        self._drop(client)

    def _forget(self, client: Client) -> Job:
        yield from ()
        if client.number in self.session.clients:
            self.session.forget(client)

    def _introduce(self, client: Client, packet: bytes) -> None:
        """Answer an untyped packet: a wish for encryption, a cancel request or the start-up (54.2.1)."""
        code = wire.int32(packet, 4)
        if code in {wire.SSL_REQUEST, wire.GSSENC_REQUEST}:
            client.send(b"N")
        elif code == wire.CANCEL_REQUEST:
            self.cancel(wire.int32(packet + b"\0\0\0\0", 8), packet[12:])
            self._drop(client)
        else:
            login.start(client, packet, code, self.outside.random)

    def _let_in(self, client: Client) -> None:
        """Have a client that has identified itself greeted in its turn."""
        if self.broken:
            client.send(refusals.server_gone(self.broken))
            self._drop(client)
        else:
            client.stage = Stage.READY
            self._queued.add(client.number)
            self._queue.append(Task(lambda: self._greet(client), client))

    def _greet(self, client: Client) -> Job:
        """Give a client its start-up parameters, and tell it what they are now."""
        self._queued.discard(client.number)
        self.session.clients[client.number] = client
        if (yield from greet(self.session, client)):
            self._enqueue(client)
        else:
            self._drop(client)

    def _refuse(self, client: Client, refusal: Refused) -> None:
        client.send(refusal.error)
        self._drop(client)

    def _drop(self, client: Client) -> None:
        """Close the connection once what was said has been sent."""
        client.stage = Stage.ENDED
        client.units.clear()
        self._close_direct(client)

    def _close_direct(self, client: Client) -> None:
        direct = self._direct.pop(client.number, None)
        if direct is not None:
            self._changed |= direct.changed
            self.outside.close_direct(client)

    def _notified(self, message: bytes) -> None:
        """Nothing listens on the shared session itself: LISTEN is answered by the sandbox."""

    def cancel(self, number: int, key: bytes) -> None:
        """Cancel what the client of that number and key is waiting for."""
        client = self.session.clients.get(number)
        if client is None or not hmac.compare_digest(client.key, key):
            return
        if self.served is client or client.number in self._direct:
            self.interrupt(client)
        elif client.number in self._queued and client.units:
            service.cancel(self.session, client, client.units.popleft())
        elif client.copying is not None:
            client.copying.is_cancelled = True

    def interrupt(self, client: Client) -> None:
        """Have the server cancel the statement of a client that is served.

        What the sandbox says to the server by itself must succeed: meanwhile the wish waits for the statement.
        """
        if client.number in self._direct or self.backend.runs_statement:
            self.outside.cancel(client)
        else:
            self._to_cancel = client

    def _interrupt_at_last(self) -> None:
        if self._to_cancel is not None and self.backend.runs_statement:
            self.outside.cancel(self._to_cancel)
            self._to_cancel = None

    @property
    def served(self) -> Client | None:
        """The client that the shared session works for."""
        return self._task.client if self._task is not None else None

    def find(self, number: int) -> Client | None:
        """Return the client of that number, if it is connected."""
        return self.session.clients.get(number)

    def owes(self, client: Client) -> bool:
        """Return whether something that *client* has sent is still to be done."""
        return client.number in self._queued or self.served is client or client.number in self._direct

    @property
    def have_timeouts(self) -> set[int]:
        """The numbers of clients whose statements or transactions may be ended by a timeout of their own."""
        return {number for number, direct in self._direct.items() if direct.has_timeouts}

    @property
    def delays_the_test_run(self) -> Task | None:
        """What is done for a client while the test run waits for its turn."""
        task = self._task
        if not self._queue or task is None or task.client is None or not any(each.done for each in self._queue):
            return None
        return task

    # -- The queue

    def _enqueue(self, client: Client) -> None:
        direct = self._route(client)
        if direct is not None:
            while client.units:
                direct.take(client.units.popleft())
            if client.stage is Stage.ENDED:
                direct.end()
        elif client.number not in self._queued:
            is_its_turn = self._job is None and not self._queue and len(client.units) == 1
            if is_its_turn and at_once.serve(self.session, client, client.units[0]):
                client.units.clear()
            if client.units:
                self._queued.add(client.number)
                self._queue.append(Task(lambda: self._serve(client), client))
            elif client.stage is Stage.ENDED:
                self._queue.append(Task(lambda: self._forget(client)))

    def _route(self, client: Client) -> DirectSession | None:
        """Return the client's own session, if it has one or should have one now."""
        direct = self._direct.get(client.number)
        return self._move(client) if direct is None and self.is_direct and client.units else direct

    def _move(self, client: Client) -> DirectSession | None:
        """Give a client a session of its own, if it is between transactions here."""
        direct = None
        if client.number not in self.session.clients or client.number in self._queued:
            return None
        if client.transaction is not None or client.copying is not None or client.skips:
            return None
        try:
            direct = self._direct[client.number] = self.outside.open_direct(client)
        except Unavailable as reason:
            client.units.clear()
            client.send(refusals.server_gone(str(reason)))
            self._drop(client)
        return direct

    def _serve(self, client: Client) -> Job:
        self._queued.discard(client.number)
        if client.units and not at_once.serve(self.session, client, unit := client.units.popleft()):
            yield from service.serve(self.session, client, unit)
        if client.stage is Stage.ENDED and not client.units:
            yield from self._forget(client)  # at once: nobody is to see what it has not committed
        elif client.units or self.is_direct:
            self._enqueue(client)

    def ask(self, job: Callable[[], Job], done: Callable[[Any], None]) -> None:
        """Queue work of the test run, behind all that clients have said until now.

        Args:
            job: The work.
            done: Called with its result, or with an exception.
        """
        for client in self.session.clients.values():  # of a client's units one at a time is in the queue
            for _ in range(len(client.units) - (client.number in self._queued)):
                self._queue.append(Task(partial(self._serve, client), client))
        self._queue.append(Task(job, done=done))

    def run(self) -> None:
        """Do what can be done without hearing more from anybody."""
        while True:
            if self._job is None:
                if not self._queue:
                    return
                self._task = self._queue.popleft()
                self._job = self._task.job()
            elif not self.backend.is_idle:
                return
            self._advance(self._job)

    def _advance(self, job: Job) -> None:
        try:
            self.backend.send(job.send(None))
            self._interrupt_at_last()
        except StopIteration as end:
            self._finish(end.value)
        except Broken as problem:
            self.break_down(f"{refusals.ESCAPED}: {problem}")

    def _finish(self, result: Any) -> None:
        self._answer(result)
        self._job = self._task = self._to_cancel = None

    def _answer(self, result: Any) -> None:
        """Tell who asked for the job that runs, if it has not been told."""
        task = self._task
        if task is not None and task.done is not None:
            done, task.done = task.done, None
            done(result)

    # -- The server

    def heard(self, data: bytes) -> None:
        """Take bytes from the server's shared session."""
        self.backend.receive(data)
        self._interrupt_at_last()

    def break_down(self, reason: str) -> None:
        """Note that the shared session is of no use any more, and tell everybody."""
        self.broken = self.broken or reason
        task, self._job, self._task, self._to_cancel = self._task, None, None, None
        waiting = [task] if task is not None else []
        waiting += self._queue
        self._queue.clear()
        self._queued.clear()
        for client in list(self.session.clients.values()):
            if not client.is_told_of_end:
                client.send(refusals.server_gone(reason))
            self._drop(client)
        self.session.clients.clear()
        for each in waiting:
            if each.done is not None:
                each.done(Broken(reason))

    def renew(self, reported: dict[str, str]) -> None:
        """Begin again on a new session of the server; the frames that were open are open again, empty."""
        names = [frame.name for frame in self.session.history.frames]
        refuses, dirty = self.session.refuses_dirty_reads, self.session.dirty_reads
        self.backend = Backend(reported, self._notified)
        self.session = SharedSession(self.backend)
        self.session.refuses_dirty_reads, self.session.dirty_reads = refuses, dirty
        self.broken = ""
        for name in names:
            self.session.history.push(name)

    # -- What the test run asks for

    def push(self, name: str, *, is_back: bool = False) -> Job:
        """Open a frame, or again the one that was set aside last."""
        yield from self.session.tidy()
        self.session.push(name)
        if is_back and self._aside:
            renumber(self.session, -len(self._aside), len(self.session.history.frames))
            self._listening.append(self._aside.pop())
        else:
            self.journal.clear()
            self._listening.append(leftovers.listening(self.session.clients.values()))
        return {}

    def set_aside(self) -> Job:
        """Close the innermost frame to open it again: what was begun in it goes on, what was written is undone."""
        before = self._listening[-1] if self._listening else {}
        if self.session.history.wrote_in_frame:
            yield from self.pop()
        else:
            self._dissolve(-len(self._aside) - 1)
        self._aside.append(before)
        return {}

    def merge(self) -> Job:
        """Close the innermost frame: what was begun in it counts for the one below. Undone if anything was written."""
        if self.session.history.wrote_in_frame:
            return (yield from self.pop())
        below = len(self.session.history.frames) - 1
        self._dissolve(below)
        lost, self.after_loss = self.after_loss, ""
        clients = [client for client in self.session.clients.values() if client.in_transaction]
        left = [client.describe() for client in clients if client.transaction and client.transaction.depth == below]
        self.session.dirty_reads.take()
        return _report(False, left, lost)

    def _dissolve(self, place: int) -> None:
        """Close the innermost frame and undo nothing; what was begun in it counts for the *place*-th."""
        del self._listening[-1:]
        renumber(self.session, len(self.session.history.frames), place)
        self.session.history.dissolve()

    def pop(self) -> Job:
        """Undo the innermost frame; report what was left in it."""
        wrote = self.session.history.wrote_in_frame
        undone = yield from end_frame(self.session)
        for client in undone.misled:
            self._drop(client)
        lost, self.after_loss = self.after_loss, ""
        before = self._listening.pop() if self._listening else {}
        remaining = [*undone.leftovers, *leftovers.new_channels(self.session.clients.values(), before)]
        report = {
            **_report(wrote, [client.describe() for client in undone.in_transaction], lost),
            "dirty_reads": [asdict(read) for read in self.session.dirty_reads.take()],
            "leftovers": [asdict(each) for each in remaining],
        }
        self._answer(report)  # the rollback is not waited for: what follows has to wait for it anyway
        yield from roll_back_frame(self.session)
        return report

    @property
    def is_clean(self) -> bool:
        """Whether the end of the innermost frame would have nothing to report, as far as is known."""
        return not (
            self._job is not None
            or self._queue
            or self._direct
            or self.broken
            or self.after_loss
            or self.session.has_something_to_report
        )

    def own(self, number: int, *, is_own: bool) -> None:
        """Take note whether the client of that number works for the test itself now."""
        self.session.dirty_reads.own(number, is_own=is_own)

    def wrote(self) -> Job:
        """Tell whether anything was written in the innermost frame."""
        yield from ()
        return {"wrote": self.session.history.wrote_in_frame}

    def enter_direct(self) -> Job:
        """From now on give each client a session of its own."""
        yield from ()
        self.is_direct = True
        for client in list(self.session.clients.values()):
            if client.channels and client.stage is Stage.READY:
                self._move(client)  # others have one when they say something
        return {}

    def leave_direct(self, frame: str) -> Job:
        """Close the clients' own sessions and have them share again; report who was in a transaction."""
        yield from ()
        self.is_direct = False
        left, remaining = [], []
        for number, direct in list(self._direct.items()):
            client = direct.client
            if client.stage is Stage.ENDED:
                pass  # it has gone, and what it has left with it
            elif direct.status != "I":
                left.append(client.describe())
                client.transaction = Transaction(number, failed=True, lost=frame)
            else:
                remaining += self._left_in(direct)
            self._have_share_again(direct, frame)
        changed, self._changed = self._changed, False
        return {**_report(changed, left), "leftovers": [asdict(each) for each in remaining]}

    def _left_in(self, direct: DirectSession) -> list[Leftover]:
        """Return what a client has left behind in a session of its own."""
        if not direct.left or not direct.is_idle:
            return []
        client = direct.client
        found = self.outside.ask_direct(client, leftovers.OF_A_SESSION)
        return [
            Leftover(client.number, client.label, what, direct.left.get(what, "")[:500])
            for what in found
            if what not in direct.brought
        ]

    def _have_share_again(self, direct: DirectSession, frame: str) -> None:
        """Close a client's own session; a client that waits for an answer of it is told that the session has gone."""
        client = direct.client
        client.portals.clear()
        if direct.status == "I":
            client.keep_encoding()
        client.told = None  # of the parameters of the shared session
        if direct.is_awaited:
            client.send(refusals.database_gone(frame))
            self._drop(client)
        else:
            self._close_direct(client)


def _report(wrote: bool, in_transaction: list[str], lost: str = "") -> dict[str, Any]:
    """Return what the test run is told at the end of a frame."""
    return {
        "wrote": wrote,
        "in_transaction": in_transaction,
        "lost": lost,
        "has_escaped": lost.startswith(refusals.ESCAPED),
        "dirty_reads": [],
        "leftovers": [],
    }

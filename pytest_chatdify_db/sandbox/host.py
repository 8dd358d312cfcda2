"""The sockets of the sandbox: one thread, one selector, no decision that is not about bytes.

The rule: the host reads what has come, tells the core, lets it run, and writes what it left. It ends when the test run
closes the control connection, or dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, cast

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import ConnectError, Connection, ServerError, cancel, connect
from pytest_chatdify_db.sandbox import parameters, waits
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.core import Core, Identity, Job, Task, Unavailable
from pytest_chatdify_db.sandbox.dialogue import Said, packed
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.flag import Flag
from pytest_chatdify_db.sandbox.orders import Orders
from pytest_chatdify_db.sandbox.session import Broken
from pytest_chatdify_db.sandbox.spool import Spool

_CHUNK: Final = 1 << 18
#: How often a socket is read before the end of a test: more than the buffers of the system hold.
_MOST_READS: Final = 100
#: Seconds between two looks whether the test run is still alive; its end normally shows on the control connection.
_HEARTBEAT: Final = 1.0
#: Seconds that the end of a test waits for a statement that still runs, before it has the server cancel it.
_PATIENCE: Final = 2.0
#: Seconds more that such a statement has to end, before its session is ended.
_LAST_PATIENCE: Final = 5.0
#: Seconds that a server may take to recover from the death of one of its processes, or else to answer at all.
_RECOVERY: Final = 20.0
_REVIVAL: Final = 2.0
_MOMENT: Final = 0.5
_WITHOUT_A_WORD: Final = "the server closed the connection without a word"
#: SQLSTATE of a server that starts, recovers or stops.
_CANNOT_CONNECT_NOW: Final = "57P03"
#: Bytes for one socket that are held in memory; what is more goes to a file.
_MOST_IN_MEMORY: Final = 8 << 20


@dataclass(eq=False, slots=True)
class Peer:
    """A socket, what is to be written to it, and who takes what is read from it."""

    sock: socket.socket
    out: bytearray
    received: Callable[[bytes], None]
    ended: Callable[[], None]
    spool: Spool = field(default_factory=Spool)
    is_encrypted: bool = False
    has_hung_up: bool = False  # it sends no more, and may still read
    events: int = 0  # what the selector looks for

    @property
    def has_output(self) -> bool:
        """Whether something is still to be written."""
        return bool(self.out) or len(self.spool) > 0


@dataclass(slots=True)
class Own:
    """A client's own session: where it is and how to cancel it."""

    peer: Peer
    address: Address
    pid: int
    key: bytes


class Host:
    """The sandbox with its sockets.

    Args:
        listeners: Where clients connect; bound, and listening from now on.
        control: The connection to the test run.
        notes: What the test run says without waking anybody: it is read before whatever is said afterwards.
        is_clean: Tells the test run that the end of a frame would have nothing to report.
        server: The server and database behind the sandbox.
        identity: Who may connect.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        control: socket.socket,
        notes: socket.socket,
        is_clean: Flag,
        server: Address,
        identity: Identity,
    ) -> None:
        self._server = server
        self._own_database: Address | None = None
        self._selector = selectors.DefaultSelector()
        self._chunk = memoryview(bytearray(_CHUNK))  # a new one for each recv would cost more than the call itself
        self._clients: dict[int, tuple[Client, Peer]] = {}
        self._own: dict[int, Own] = {}
        self._monitor: Connection | None = None
        self._control = Peer(control, bytearray(), self._control_received, self._stop)
        self._orders = Orders()
        self._notes = Peer(notes, bytearray(), self._orders.take_notes, lambda: None)
        notes.setblocking(False)
        self._notes_wait = select.poll()
        self._notes_wait.register(notes, select.POLLIN)
        self._is_clean = is_clean
        self._is_running = True
        self._overdue: Task | None = None  # what delays the test run
        self._overdue_since = 0.0
        self._is_cancelled = False
        self._parent = os.getppid()
        self._backend, reported = self._connect()
        self._core = Core(identity, self, reported)
        self._shared = self._watch_backend()
        self._watch(self._control)
        for listener in listeners:
            listener.listen(512)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, None)
        self._control.out += packed({})  # it may begin
        self._write(self._control)

    def refuse_dirty_reads(self, refuse: bool) -> None:
        """Say whether a dirty read is an error for who reads."""
        self._core.session.refuses_dirty_reads = refuse

    # -- The loop

    def run(self) -> None:
        """Serve until the test run ends."""
        while self._is_running:
            events = self._selector.select(_HEARTBEAT)
            if not events and os.getppid() != self._parent:
                return
            for key, mask in events:
                peer: Peer | None = key.data
                if peer is None:
                    self._accept(cast("socket.socket", key.fileobj))
                    continue
                if mask & selectors.EVENT_READ:
                    self._read(peer)
                if mask & selectors.EVENT_WRITE:
                    self._write(peer)
            if self._orders:
                self._read_on()
                self._obey_orders(all_clients_are_read=True)
            self._core.run()
            self._is_clean.set(self._core.is_clean)
            self._cancel_overdue()
            self._write_all()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = self._core.connected()
            peer = Peer(
                sock,
                client.out,
                lambda data: self._client_said(client, data),
                lambda: self._client_hung_up(client),
            )
            self._clients[client.number] = client, peer
            self._watch(peer)

    def _client_said(self, client: Client, data: bytes) -> None:
        if self._read_notes():  # a ``push`` that was said before this
            self._read(self._control)  # and the ``pop`` before that
            self._obey_orders()
        self._core.received(client, data)

    def _watch(self, peer: Peer) -> None:
        peer.is_encrypted = hasattr(peer.sock, "pending")
        peer.sock.setblocking(False)
        self._look_for(peer)

    def _look_for(self, peer: Peer) -> None:
        """Have the selector look for what can be done with the socket."""
        reads = 0 if peer.has_hung_up else selectors.EVENT_READ
        events = reads | (selectors.EVENT_WRITE if peer.has_output else 0)
        if events == peer.events:
            return
        if not peer.events:
            self._selector.register(peer.sock, events, peer)
        elif events:
            self._selector.modify(peer.sock, events, peer)
        else:
            self._selector.unregister(peer.sock)
        peer.events = events

    def _unwatch(self, peer: Peer) -> None:
        if peer.events:
            self._selector.unregister(peer.sock)
            peer.events = 0
        peer.has_hung_up = True
        peer.out.clear()
        peer.spool.clear()
        peer.sock.close()

    def _read(self, peer: Peer) -> None:
        while not peer.has_hung_up:
            try:
                data = bytes(self._chunk[: peer.sock.recv_into(self._chunk)])
            except OSError as error:
                if _wants_more(error):
                    return
                data = b""
            if not data:
                peer.ended()
                return
            peer.received(data)
            if not peer.is_encrypted:  # TLS may hold more than the selector knows of
                return

    def _read_on(self) -> None:
        """Read what clients had sent before an order came, and was more than is read at once."""
        for _ in range(_MOST_READS):
            events = self._selector.select(0)
            peers = [key.data for key, mask in events if mask & selectors.EVENT_READ and key.data is not self._control]
            for peer in filter(None, peers):
                self._read(peer)
            if not any(peers):
                return

    def _write(self, peer: Peer) -> None:
        out, spool = peer.out, peer.spool
        try:
            if out and not spool:
                del out[: peer.sock.send(out)]
                if not out and peer.events == selectors.EVENT_READ:
                    return  # nearly always: all of it at once
            while peer.has_output:
                if spool:
                    spool.drop(peer.sock.send(spool.head(_CHUNK)))
                else:
                    del out[: peer.sock.send(out)]
        except OSError as error:
            if not _wants_more(error):
                self._give_up(peer)
        if len(out) > _MOST_IN_MEMORY:
            self._put_aside(peer)
        self._look_for(peer)

    def _make_room(self, peer: Peer) -> None:
        if len(peer.out) > _MOST_IN_MEMORY:
            self._put_aside(peer)

    def _put_aside(self, peer: Peer) -> None:
        try:
            peer.spool.put(peer.out)
            peer.out.clear()
        except OSError:  # the disk is full: the connection breaks in the middle of its result
            self._give_up(peer)
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _give_up(peer: Peer) -> None:
        """Write nothing more: it is gone, and its end will be read."""
        peer.out.clear()
        peer.spool.clear()

    def _write_all(self) -> None:
        if self._shared.out:
            self._write(self._shared)
        for own in self._own.values():
            if own.peer.out:
                self._write(own.peer)
        ended = []
        for client, peer in self._clients.values():
            if peer.out:
                self._write(peer)
            if client.stage is Stage.ENDED and not peer.has_output and not self._core.owes(client):
                ended.append(client)
        for client in ended:
            self._client_ended(client)

    def _client_hung_up(self, client: Client) -> None:
        """Serve what the client has sent before it closed its side, as the server does; it may still read."""
        _, peer = self._clients[client.number]
        peer.has_hung_up = True
        self._look_for(peer)
        self._core.hung_up(client)

    def _client_ended(self, client: Client) -> None:
        _, peer = self._clients.pop(client.number, (client, None))
        if peer is not None:
            self._dismiss(peer)
            self._core.closed(client)
            self._core.run()

    def _dismiss(self, peer: Peer) -> None:
        """Close our side, and the socket when the client closes its own.

        Were it closed at once, what the client sends meanwhile would be answered with a reset, and its driver would not
        get to read why the connection has ended.
        """
        peer.received, peer.ended = lambda _: None, lambda: self._unwatch(peer)
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            peer.has_hung_up = True
        if peer.has_hung_up:
            self._unwatch(peer)

    # -- The server

    def _connect(self) -> tuple[tuple[socket.socket, bytes, int, bytes], dict[str, str]]:
        connection = connect(self._server, application_name="")
        connection.query(parameters.LIFT_IDLE)
        unread, pid, key = bytes(connection.unread), connection.pid, connection.key
        return (connection.detach(), unread, pid, key), dict(connection.parameters)

    def _watch_backend(self) -> Peer:
        sock, unread, _, _ = self._backend
        peer = Peer(sock, self._core.backend.out, self._heard, self._server_ended)
        self._watch(peer)
        self._core.backend.make_room = lambda: self._make_room(peer)
        if unread:
            self._core.heard(unread)
        return peer

    def _heard(self, data: bytes) -> None:
        self._core.heard(data)
        self._core.run()

    def _server_ended(self) -> None:
        self._unwatch(self._shared)
        self._shared.out.clear()
        fatal = self._core.backend.fatal_text
        self._core.break_down(fatal or _WITHOUT_A_WORD)

    def _renew(self) -> None:
        """Open another session on the server in place of one that broke.

        A server that lost a process ends all sessions and recovers; that it does so is worth waiting for.
        """
        self._unwatch(self._shared)
        began = time.monotonic()
        while True:
            try:
                self._backend, reported = self._connect()
                if self._core.broken != _WITHOUT_A_WORD or self._lasts(self._backend[0]):
                    break
                self._backend[0].close()
            except (ConnectError, ServerError) as error:
                recovers = isinstance(error, ServerError) and error.sqlstate == _CANNOT_CONNECT_NOW
                if time.monotonic() - began > (_RECOVERY if recovers else _REVIVAL):
                    raise
                time.sleep(0.05)
        self._core.renew(reported)
        self._shared = self._watch_backend()

    @staticmethod
    def _lasts(sock: socket.socket) -> bool:
        """Return whether a new session outlives the moment in which the server learns that it has lost a process."""
        return not select.select([sock], [], [], _MOMENT)[0]

    # -- What the core needs

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return os.urandom(length)

    def cancel(self, client: Client) -> None:
        """Ask the server to cancel what it does for *client*."""
        own = self._own.get(client.number)
        address, pid, key = (own.address, own.pid, own.key) if own else (self._server, *self._backend[2:])
        with contextlib.suppress(ConnectError):
            cancel(address, pid, key)

    def new_store(self) -> Spool:
        """Return a place for the data of a COPY."""
        return Spool()

    def open_direct(self, client: Client) -> DirectSession:
        """Open a session of the client's own on the test's database."""
        address = self._own_database
        if address is None:
            raise Unavailable("the test has no database of its own")
        try:
            connection = connect(address, application_name="", settings=client.parameters.startup)
        except (ConnectError, ServerError) as error:
            raise Unavailable(str(error)) from error
        may_write = self._core.session.catalog.may_write
        direct = DirectSession(client, connection.parameters, may_write, self._number_of)
        peer = Peer(
            connection.detach(),
            direct.out,
            direct.receive,
            lambda: self._core.direct_ended(client),
        )
        direct.make_room = lambda: self._make_room(peer)
        self._own[client.number] = Own(peer, address, connection.pid, connection.key)
        self._watch(peer)
        return direct

    def _number_of(self, pid: int) -> int:
        """Return the number of the client that has the session *pid* for itself."""
        return next((number for number, own in self._own.items() if own.pid == pid), pid)

    def ask_direct(self, client: Client, sql: str) -> list[str]:
        """Return what *sql* yields in the client's own session, which is idle; nothing if it does not answer."""
        own = self._own.get(client.number)
        if own is None or own.peer.has_output or self._has_spoken(client):
            return []
        own.peer.sock.settimeout(_PATIENCE)
        session = Connection(own.address, own.peer.sock)
        try:
            answer = [row[0] or "" for row in session.query(sql)]
            session.detach().setblocking(False)
        except (ConnectError, ServerError):
            return []
        return answer

    def _has_spoken(self, client: Client) -> bool:
        """Return whether the client has sent something that was not read yet, were it that it ends."""
        _, peer = self._clients[client.number]
        try:
            peer.sock.recv(1, socket.MSG_PEEK)
        except OSError as error:
            return not _wants_more(error)
        return True

    def close_direct(self, client: Client) -> None:
        """Close it."""
        own = self._own.pop(client.number, None)
        if own is not None:
            self._write(own.peer)
            self._unwatch(own.peer)

    def _cancel_overdue(self) -> None:
        task = self._core.delays_the_test_run
        if task is not self._overdue:
            self._overdue, self._overdue_since, self._is_cancelled = task, time.monotonic(), False
        if task is None or task.client is None:
            return
        if time.monotonic() - self._overdue_since > _PATIENCE + _LAST_PATIENCE:
            self._terminate(task.client)
        elif time.monotonic() - self._overdue_since > _PATIENCE and not self._is_cancelled:
            self._is_cancelled = True
            self._core.interrupt(task.client)

    def _terminate(self, client: Client) -> None:
        """Give up the shared session, whose statement for *client* does not heed that it is cancelled."""
        with contextlib.suppress(ConnectError, ServerError):
            self._asking().query(f"SELECT pg_catalog.pg_terminate_backend({self._backend[2]})")
        self._core.break_down(f"a statement could not be cancelled that ran on after its test: {client.describe()}")

    # -- The test run

    def _stop(self) -> None:
        self._is_running = False

    def _control_received(self, data: bytes) -> None:
        self._orders.take(data)
        self._read_notes()
        self._obey_orders()

    def _read_notes(self) -> bool:
        """Read what the test run has said without waking anybody; return whether there was something."""
        if not self._notes_wait.poll(0):  # cheaper than a read that finds nothing, as nearly always
            return False
        self._read(self._notes)
        return True

    def _obey_orders(self, *, all_clients_are_read: bool = False) -> None:
        for order in self._orders.due(all_clients_are_read=all_clients_are_read):
            self._obey(order)

    def _obey(self, command: Said) -> None:
        core, name = self._core, command["do"]
        answer = partial(self._answer, number=command["number"], is_quiet=command.get("is_quiet", False))
        if (answered := self._answer_at_once(command)) is not None:
            answer(answered)
            return
        if core.broken and name in {"push", "pop"}:
            reason = core.broken
            try:
                self._renew()
            except (ConnectError, ServerError) as error:
                answer({"error": f"{reason}; and no new session can be had: {error}"})
                return
            if name == "pop":
                core.after_loss = reason
        job: Callable[[], Job]
        if name == "push":
            job = lambda: core.push(command["name"])  # noqa: E731 - a job is what the queue holds
        elif name == "pop":
            job = core.pop
        elif name == "wrote":
            job = core.wrote
        elif name == "enter":
            self._own_database = Address.from_fields(command["address"])
            job = core.enter_direct
        else:
            job = lambda: core.leave_direct(command["name"])  # noqa: E731 - a job is what the queue holds
        core.ask(job, answer)
        core.run()

    def _answer_at_once(self, command: Said) -> Said | None:
        """Obey a command that waits for nobody's turn on the shared session; None if it does."""
        name = command["do"]
        if name == "waits":
            return self._waits()
        if name == "journal":
            return {"executed": [asdict(each) for each in self._core.journal.read()]}
        if name == "end_wait":
            return self._end_wait(command["client"], command["explanation"])
        if name == "own":
            self._core.own(command["client"], is_own=command["is_own"])
            return {}
        return None

    def _waits(self) -> Said:
        """Tell who waits for whom, whatever the shared session does meanwhile."""
        clients = {own.pid: number for number, own in self._own.items()}
        if self._core.served is not None:
            clients[self._backend[2]] = self._core.served.number
        try:
            return {"waits": [asdict(wait) for wait in waits.find(self._asking(), clients, self._core.have_timeouts)]}
        except (ConnectError, ServerError) as error:
            return {"error": str(error)}

    def _asking(self) -> Connection:
        """Return a connection that nobody else uses; raises ``ConnectError``, ``ServerError``."""
        if self._monitor is None or self._monitor.is_closed:
            self._monitor = connect(self._server, application_name="chatdify-db monitor")
            self._monitor.query(parameters.LIFT_IDLE)
        return self._monitor

    def _end_wait(self, number: int, explanation: str) -> Said:
        client = self._core.find(number)
        if client is not None:
            client.explanation = explanation
            self._core.interrupt(client)
        return {}

    def _answer(self, result: Any, number: int, *, is_quiet: bool) -> None:
        if isinstance(result, Broken):
            result = {"error": str(result)}
        if is_quiet and "error" not in result:
            return
        self._control.out += packed({**result, "number": number})
        self._write(self._control)  # the test goes on while its frame is rolled back


def _wants_more(error: OSError) -> bool:
    """Return whether the socket, or TLS on it, only has to be waited for."""
    if isinstance(error, BlockingIOError | InterruptedError):
        return True
    return type(error).__name__ in {"SSLWantReadError", "SSLWantWriteError"}

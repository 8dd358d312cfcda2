"""The sandbox with its sockets, in one thread: who is at which, and what the test run has ordered.

The rule: the host reads what has come, tells the core, lets it run, and writes what it left. It ends when the test run
closes the control connection, or dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, cancel, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.sandbox import parameters, waits
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.core import Core, Job, Task, Unavailable
from pytest_chatdify_db.sandbox.dialogue import Said, packed
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.flag import Flag
from pytest_chatdify_db.sandbox.login import Identity
from pytest_chatdify_db.sandbox.opening import open_again, open_session
from pytest_chatdify_db.sandbox.orders import Orders
from pytest_chatdify_db.sandbox.server_session import Broken
from pytest_chatdify_db.sandbox.sockets import Peer, Sockets, wants_more
from pytest_chatdify_db.sandbox.spool import Spool

#: Seconds between two looks whether the test run is still alive; its end normally shows on the control connection.
_HEARTBEAT: Final = 1.0
#: Seconds that the end of a test waits for a statement that still runs, before it has the server cancel it.
_PATIENCE: Final = 2.0
#: Seconds more that such a statement has to end, before its session is ended.
_LAST_PATIENCE: Final = 5.0
#: What the test run asks about what clients have done, and what of it opens or closes a frame.
_LOOKING_BACK: Final = {"pop": Core.pop, "merge": Core.merge, "set_aside": Core.set_aside, "wrote": Core.wrote}
_OF_FRAMES: Final = frozenset({"push", "pop", "merge", "set_aside"})
_OWN_MISTAKE: Final = "the sandbox has met something that it cannot deal with, please report it: "
_WITHOUT_A_WORD: Final = "the server closed the connection without a word"


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
        self._sockets = Sockets()
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
        self._opened = open_session(server)
        self._core = Core(identity, self, self._opened.reported)
        self._shared = self._watch_backend()
        self._sockets.watch(self._control)
        for listener in listeners:
            self._sockets.listen(listener, self._connected)
        self._control.out += packed({})  # it may begin
        self._sockets.write(self._control)

    def refuse_dirty_reads(self, refuse: bool) -> None:
        """Say whether a dirty read is an error for who reads."""
        self._core.session.refuses_dirty_reads = refuse

    # -- The loop

    def run(self) -> None:
        """Serve until the test run ends."""
        while self._is_running:
            if not self._sockets.turn(_HEARTBEAT) and os.getppid() != self._parent:
                return
            if self._orders:
                self._sockets.read_on(but=self._control)
                self._obey_orders(all_clients_are_read=True)
            self._guarded(self._core.run)
            self._is_clean.set(self._core.is_clean)
            self._cancel_overdue()
            self._write_all()

    def _guarded(self, act: Callable[..., None], *given: object) -> None:
        """Have a mistake of the sandbox's own, met in what somebody has said, cost a test and not the run."""
        try:
            act(*given)
        except Exception as error:
            if self._core.broken:
                raise  # it does not help to begin anew
            import traceback  # takes 9 ms, which every start would lose

            traceback.print_exc()
            self._core.break_down(f"{_OWN_MISTAKE}{type(error).__name__}: {error}")

    def _connected(self, sock: socket.socket) -> None:
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
        self._sockets.watch(peer)

    def _client_said(self, client: Client, data: bytes) -> None:
        if self._read_notes():  # a ``push`` that was said before this
            self._sockets.read(self._control)  # and the ``pop`` before that
            self._obey_orders()
        self._guarded(self._core.received, client, data)

    def _write_all(self) -> None:
        if self._shared.out:
            self._sockets.write(self._shared)
        for own in self._own.values():
            if own.peer.out:
                self._sockets.write(own.peer)
        ended = []
        for client, peer in self._clients.values():
            if peer.out:
                self._sockets.write(peer)
            if client.stage is Stage.ENDED and not peer.has_output and not self._core.owes(client):
                ended.append(client)
        for client in ended:
            self._client_ended(client)

    def _client_hung_up(self, client: Client) -> None:
        """Serve what the client has sent before it closed its side, as the server does; it may still read."""
        _, peer = self._clients[client.number]
        peer.has_hung_up = True
        self._sockets.look_for(peer)
        self._guarded(self._core.hung_up, client)

    def _client_ended(self, client: Client) -> None:
        _, peer = self._clients.pop(client.number, (client, None))
        if peer is not None:
            self._sockets.dismiss(peer)
            self._core.closed(client)
            self._guarded(self._core.run)

    # -- The server

    def _watch_backend(self) -> Peer:
        peer = Peer(self._opened.sock, self._core.backend.out, self._heard, self._server_ended)
        self._sockets.watch(peer)
        self._core.backend.make_room = lambda: self._sockets.make_room(peer)
        if self._opened.unread:
            self._core.heard(self._opened.unread)
        return peer

    def _heard(self, data: bytes) -> None:
        self._guarded(self._core.heard, data)
        self._guarded(self._core.run)

    def _server_ended(self) -> None:
        self._sockets.close(self._shared)
        self._shared.out.clear()
        fatal = self._core.backend.fatal_text
        self._core.break_down(fatal or _WITHOUT_A_WORD)

    def _renew(self) -> None:
        """Open another session on the server in place of one that broke."""
        self._sockets.close(self._shared)
        self._opened = open_again(self._server, ended_without_a_word=self._core.broken == _WITHOUT_A_WORD)
        self._core.renew(self._opened.reported)
        self._shared = self._watch_backend()

    # -- What the core needs

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return os.urandom(length)

    def cancel(self, client: Client) -> None:
        """Ask the server to cancel what it does for *client*."""
        own = self._own.get(client.number)
        address, session = (own.address, own) if own else (self._server, self._opened)
        with contextlib.suppress(ConnectError):
            cancel(address, session.pid, session.key)

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
        direct.make_room = lambda: self._sockets.make_room(peer)
        self._own[client.number] = Own(peer, address, connection.pid, connection.key)
        self._sockets.watch(peer)
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
            return not wants_more(error)
        return True

    def close_direct(self, client: Client) -> None:
        """Close it."""
        own = self._own.pop(client.number, None)
        if own is not None:
            self._sockets.write(own.peer)
            self._sockets.close(own.peer)

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
            self._asking().query(f"SELECT pg_catalog.pg_terminate_backend({self._opened.pid})")
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
        self._sockets.read(self._notes)
        return True

    def _obey_orders(self, *, all_clients_are_read: bool = False) -> None:
        for order in self._orders.due(all_clients_are_read=all_clients_are_read):
            self._obey(order)

    def _obey(self, command: Said) -> None:
        answer = partial(self._answer, number=command["number"], is_quiet=command.get("is_quiet", False))
        if (answered := self._answer_at_once(command)) is not None:
            answer(answered)
        elif (problem := self._revive_for(command["do"])) is not None:
            answer(problem)
        else:
            self._core.ask(self._job_of(command), answer)
            self._guarded(self._core.run)

    def _revive_for(self, name: str) -> Said | None:
        """Have a session where a test begins or ends though the last one broke; return why there is none."""
        reason = self._core.broken
        if not reason or name not in _OF_FRAMES:
            return None
        try:
            self._renew()
        except (ConnectError, ServerError) as error:
            return {"error": f"{reason}; and no new session can be had: {error}", "is_of_server": True}
        if name != "push":
            self._core.after_loss = reason
        return None

    def _job_of(self, command: Said) -> Callable[[], Job]:
        """Return what a command that waits for its turn on the shared session has done there."""
        core, name = self._core, command["do"]
        if name == "push":
            return lambda: core.push(command["name"], is_back=command.get("is_back", False))
        if name in _LOOKING_BACK:
            return partial(_LOOKING_BACK[name], core)
        if name == "enter":
            self._own_database = Address.from_fields(command["address"])
            return core.enter_direct
        return lambda: core.leave_direct(command["name"])

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
            clients[self._opened.pid] = self._core.served.number
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
        self._sockets.write(self._control)  # the test goes on while its frame is rolled back

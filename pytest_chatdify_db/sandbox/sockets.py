"""Sockets without waiting: what has come is read, what is to be said is written as far as it goes, the rest is kept.

The rule: nothing here knows who is at the other end, or what the bytes mean.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.sandbox.spool import Spool

_CHUNK: Final = 1 << 18
#: How often sockets are read by `Sockets.read_on`: more than the buffers of the system hold.
_MOST_READS: Final = 100
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


class Sockets:
    """The sockets that are open, and the selector that watches them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._chunk = memoryview(bytearray(_CHUNK))  # a new one for each recv would cost more than the call itself

    def listen(self, listener: socket.socket, connected: Callable[[socket.socket], None]) -> None:
        """Call *connected* with each new connection to *listener*, which is bound."""
        listener.listen(512)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, lambda: connected(listener.accept()[0]))

    def turn(self, timeout: float) -> bool:
        """Wait so many seconds at the most; read, write and accept what is due, and return whether anything was."""
        events = self._selector.select(timeout)
        for key, mask in events:
            peer: Peer | Callable[[], None] = key.data
            if not isinstance(peer, Peer):
                with contextlib.suppress(OSError):
                    peer()
                continue
            if mask & selectors.EVENT_READ:
                self.read(peer)
            if mask & selectors.EVENT_WRITE:
                self.write(peer)
        return bool(events)

    def read_on(self, but: Peer) -> None:
        """Read what there is from all peers *but* one; more may be there than is read at once."""
        for _ in range(_MOST_READS):
            ready = [key.data for key, mask in self._selector.select(0) if mask & selectors.EVENT_READ]
            peers = [peer for peer in ready if isinstance(peer, Peer) and peer is not but]
            for peer in peers:
                self.read(peer)
            if not peers:
                return

    def watch(self, peer: Peer) -> None:
        """Read from and write to *peer* from now on."""
        peer.is_encrypted = hasattr(peer.sock, "pending")
        peer.sock.setblocking(False)
        self.look_for(peer)

    def look_for(self, peer: Peer) -> None:
        """Have the selector look for what can be done with the socket; call it when that has changed."""
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

    def close(self, peer: Peer) -> None:
        """Close the socket; what was to be written is dropped."""
        if peer.events:
            self._selector.unregister(peer.sock)
            peer.events = 0
        peer.has_hung_up = True
        peer.out.clear()
        peer.spool.clear()
        peer.sock.close()

    def read(self, peer: Peer) -> None:
        """Hand on what *peer* has sent, or that it has ended; nothing if nothing has come."""
        while not peer.has_hung_up:
            try:
                data = bytes(self._chunk[: peer.sock.recv_into(self._chunk)])
            except OSError as error:
                if wants_more(error):
                    return
                data = b""
            if not data:
                peer.ended()
                return
            peer.received(data)
            if not peer.is_encrypted:  # TLS may hold more than the selector knows of
                return

    def write(self, peer: Peer) -> None:
        """Write what can be written now; the rest follows when it can be."""
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
            if not wants_more(error):
                self._give_up(peer)
        if len(out) > _MOST_IN_MEMORY:
            self._put_aside(peer)
        self.look_for(peer)

    def make_room(self, peer: Peer) -> None:
        """Put aside what is to be written, if it is much."""
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

    def dismiss(self, peer: Peer) -> None:
        """Close our side, and the socket when the client closes its own.

        Were it closed at once, what the client sends meanwhile would be answered with a reset, and its driver would not
        get to read why the connection has ended.
        """
        peer.received, peer.ended = lambda _: None, lambda: self.close(peer)
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            peer.has_hung_up = True
        if peer.has_hung_up:
            self.close(peer)


def wants_more(error: OSError) -> bool:
    """Return whether the socket, or TLS on it, only has to be waited for."""
    if isinstance(error, BlockingIOError | InterruptedError):
        return True
    return type(error).__name__ in {"SSLWantReadError", "SSLWantWriteError"}

"""A process that copies bytes between two unix sockets and does nothing else: what is left of a proxy without its work.

The rule: what has come is sent on at once, whole, and nothing is looked at. Started with where it listens and where the
server does; it ends when its standard input is closed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from typing import Final

_CHUNK: Final = 1 << 18


def main(path: str, server: str) -> None:
    """Serve."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    others: dict[int, tuple[socket.socket, socket.socket]] = {}
    chunk = memoryview(bytearray(_CHUNK))
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    poll.register(listener.fileno(), select.EPOLLIN)
    print("listening", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                client, behind = listener.accept()[0], socket.socket(socket.AF_UNIX)
                behind.connect(server)
                for one, other in ((client, behind), (behind, client)):
                    others[one.fileno()] = one, other
                    poll.register(one.fileno(), select.EPOLLIN)
                continue
            one, other = others[fd]
            with contextlib.suppress(OSError):  # the other end has closed with something unread
                if length := one.recv_into(chunk):
                    other.sendall(chunk[:length])
                    continue
            for end in (one, other):
                poll.unregister(end.fileno())
                del others[end.fileno()]
                end.close()
            break  # what was polled with it may be of a number that is another connection's by now


if __name__ == "__main__":
    main(*sys.argv[1:])

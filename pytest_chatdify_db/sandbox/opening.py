"""The session on the server that all clients share: how it is opened, and another one in its place where it broke.

The rule: a server that lost a process ends all sessions and recovers; that it does so is worth waiting for.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.sandbox import parameters

#: Seconds that a server may take to recover from the death of one of its processes, or else to answer at all.
_RECOVERY: Final = 20.0
_REVIVAL: Final = 2.0
_MOMENT: Final = 0.5
#: SQLSTATE of a server that starts, recovers or stops.
_CANNOT_CONNECT_NOW: Final = "57P03"


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session.

    Args:
        sock: The connection.
        unread: What the server has said on it that nobody has read.
        pid: What the server calls it.
        key: The secret that is needed to cancel its statement.
        reported: The parameters that the server has reported.
    """

    sock: socket.socket
    unread: bytes
    pid: int
    key: bytes
    reported: dict[str, str]


def open_session(server: Address) -> Opened:
    """Open a session on *server*; raises ``ConnectError`` or ``ServerError``."""
    connection = connect(server, application_name="")
    connection.query(parameters.LIFT_IDLE)
    unread, pid, key = bytes(connection.unread), connection.pid, connection.key
    return Opened(connection.detach(), unread, pid, key, dict(connection.parameters))


def open_again(server: Address, *, ended_without_a_word: bool) -> Opened:
    """Open a session in place of one that broke, as soon as the server lets us; raises as ``open_session`` does.

    Args:
        server: Where.
        ended_without_a_word: Whether the server may not know yet that it has lost a process.
    """
    began = time.monotonic()
    while True:
        try:
            opened = open_session(server)
            if not ended_without_a_word or _lasts(opened.sock):
                return opened
            opened.sock.close()
        except (ConnectError, ServerError) as error:
            recovers = isinstance(error, ServerError) and error.sqlstate == _CANNOT_CONNECT_NOW
            if time.monotonic() - began > (_RECOVERY if recovers else _REVIVAL):
                raise
            time.sleep(0.05)


def _lasts(sock: socket.socket) -> bool:
    """Return whether a new session outlives the moment in which the server learns that it has lost a process."""
    return not select.select([sock], [], [], _MOMENT)[0]

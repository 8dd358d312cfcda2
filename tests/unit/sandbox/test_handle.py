"""What a test run holds of its sandbox, where no sandbox is needed to show it: children that are forked."""

from __future__ import annotations

import fcntl
import io
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import warnings
from contextlib import suppress
from typing import cast

from pytest_chatdify_db.sandbox.flag import Flag
from pytest_chatdify_db.sandbox.handle import Sandbox, SandboxError

PATIENCE = 5.0


def unread(sock: socket.socket) -> int:
    """Return how many bytes have come for *sock* that nobody has read."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    return int(count)


def test_a_child_forked_while_a_thread_waits_for_an_answer_goes_on() -> None:
    """The thread has locked its reader, which no child can unlock: the child lets go of the sandbox all the same."""
    control, sandbox_side = socket.socketpair()
    notes, other_side = socket.socketpair()
    flag, descriptor = Flag.create()
    os.close(descriptor)
    log = io.BytesIO()
    sandbox = Sandbox(cast("subprocess.Popen[bytes]", None), control, notes, flag, log)

    def ask() -> None:
        with suppress(SandboxError):
            sandbox.waits()

    asking = threading.Thread(target=ask)
    ended, its_end = os.pipe()
    with sandbox_side, other_side:
        asking.start()
        sandbox_side.recv(100)
        sandbox_side.send(b"\0")  # the first byte of an answer
        while unread(control):
            pass  # until the thread waits for the second one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: this is what it is about
            child = os.fork()
        if not child:
            os._exit(0)
        os.close(its_end)
        has_ended = bool(select.select([ended], [], [], PATIENCE)[0])
        os.close(ended)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    asking.join()
    log.close()
    control.close()
    notes.close()
    flag.close()
    assert has_ended

"""The program that outlives a test run by a moment: it owns one server and removes it when the run ends.

It is started by path with ``python -I -S``, in 20 ms, so it imports the standard library alone; in a session of its
own, so neither Ctrl-C nor ``kill -9`` of the test run reaches it. What it has to do stands in a job file, which it
keeps locked until it is done, so that a later run can do the job of a supervisor that was killed.

The one who starts it talks to it through a pipe: ``go`` starts the server, ``keep`` says that the server is ready and
stays until the run's lease ends. The pipe's end before ``keep`` means that the start failed: everything is removed at
once. The answers are ``started PID`` and, should the server end, ``exited CODE``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypedDict

LEASE: Final = "lease"
JOB_SUFFIX: Final = ".job"
#: The file of a run that says that somebody may still want to look into its databases.
KEPT: Final = "kept"

#: Seconds that a server goes on after its run at most, if databases were kept.
LASTS: Final = 3600.0

#: Seconds that a server may take to obey an immediate shutdown.
_PATIENCE: Final = 5.0


#: One line for each System V segment, shmctl(2)'s: key, id, mode, size, the pid of who made it, ...
_LISTED_MEMORY: Final = Path("/proc/sysvipc/shm")
_IPC_RMID: Final = 0


class Command(TypedDict):
    """A server to start: its command line, the ids to run it with (None: the own ones), the file for its output."""

    argv: list[str]
    user: int | None
    group: int | None
    log: str


class Job(TypedDict):
    """What a supervisor starts and removes.

    ``data`` is the server's data directory and belongs to nobody else; ``container`` is a name, ``engine`` the value
    of DOCKER_HOST under which it can be removed.
    """

    command: Command | None
    data: str | None
    container: str | None
    engine: str


def wait_for_end_of(lease: Path) -> int | None:
    """Block until nobody holds *lease*; return a descriptor that holds it now, or None if it does not exist."""
    try:
        descriptor = os.open(lease, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    # The kernel wakes us when the owner closes it or dies; nothing polls.
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    return descriptor


def await_end_of_interest(kept: Path, is_running: Callable[[], bool], lasts: float = LASTS) -> None:
    """Block while the file *kept* exists and the server runs, *lasts* seconds at most."""
    deadline = time.monotonic() + lasts
    while kept.exists() and is_running() and time.monotonic() < deadline:
        time.sleep(0.2)


def clean(job: Job) -> None:
    """Stop and remove what *job* names; what is gone already is no error."""
    if job["data"] is not None:
        pid = _postmaster(job["data"])
        if pid is not None:
            _end(pid)
        _free_shared_memory(Path(job["data"]))
        _remove_tree(Path(job["data"]))
    if job["container"] is not None:
        with suppress(OSError):
            _remove_container(job["container"], job["engine"])


def clean_jobs(directory: Path) -> None:
    """Do what the supervisors of the run in *directory* left undone."""
    for path in sorted(directory.glob(f"*{JOB_SUFFIX}")):
        # One that was never written to its end names nothing that exists.
        with suppress(OSError, ValueError, KeyError, TypeError):
            clean(json.loads(path.read_text()))


def remove_run(directory: Path) -> None:
    """Remove the run's *directory*, its lease last; the caller holds the lease."""
    with suppress(FileNotFoundError):
        for path in directory.iterdir():
            if path.name != LEASE:
                _remove_tree(path)
        (directory / LEASE).unlink(missing_ok=True)
        directory.rmdir()


# -- The program


def main(path: Path) -> None:
    """Supervise the server of the job file *path* until its run ends."""
    _leave_parent()
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    # Read through the descriptor: to open the file again and close that would drop the lock.
    job: Job = json.loads(os.read(descriptor, 1 << 20))
    signal.signal(signal.SIGTERM, _exit)
    # A run in the background ignores this one, children inherit that, and a server is told by it to stop at once.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    server: Any = None
    lease: int | None = None
    try:
        if job["command"] is not None:
            import subprocess as _  # noqa: F401 - takes 15 ms, in which whoever says "go" is busy
        if sys.stdin.readline() != "go\n":
            return
        if job["command"] is not None:
            signal.signal(signal.SIGCHLD, lambda *_: _report_end(server))
            server = _start(job["command"])
            _say(f"started {server.pid}")
            _report_end(server)
        if sys.stdin.readline() == "keep\n":
            lease = wait_for_end_of(path.with_name(LEASE))
            await_end_of_interest(path.with_name(KEPT), lambda: server is None or server.poll() is None)
    finally:
        if server is not None and server.poll() is None:
            _end(server.pid)
        clean(job)
        path.unlink(missing_ok=True)
        if lease is not None and not list(path.parent.glob(f"*{JOB_SUFFIX}")):
            remove_run(path.parent)


def _leave_parent() -> None:
    """Go on as a child of nobody here, so that no test process has to reap it and none gets a warning about it."""
    if os.fork():
        os._exit(0)


def _start(command: Command) -> Any:
    from subprocess import DEVNULL, Popen

    ids: dict[str, Any] = {}
    if command["user"] is not None:
        ids = {"user": command["user"], "group": command["group"], "extra_groups": []}
    with Path(command["log"]).open("ab") as log:
        return Popen(  # noqa: S603 - the command that the plugin wrote into a private file
            command["argv"], stdin=DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **ids
        )


def _report_end(server: Any) -> None:
    if server is not None and server.poll() is not None:
        _say(f"exited {server.returncode}")


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


# -- Ending what was started


def _postmaster(data: str) -> int | None:
    """Return the process that serves the *data* directory; a pid alone proves nothing, it may belong to another now."""
    try:
        # In bytes: the file holds a path too, in whatever encoding.
        pid = int(Path(data, "postmaster.pid").read_bytes().split(b"\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(data) in _command_line(pid) else None


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self").exists():
            return b""
    from subprocess import run

    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return run(command, capture_output=True, check=False).stdout  # noqa: S603 - a number of ours


def _end(pid: int) -> None:
    """Shut a PostgreSQL server down without its checkpoint: nobody will start it again."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        if not _gone(pid, _PATIENCE):
            os.kill(pid, signal.SIGKILL)
            _gone(pid, _PATIENCE)


def _free_shared_memory(data: Path) -> None:
    """Remove the System V segment of a server that was killed, which outlives its processes; any other has no pid file.

    The file's first line is the server's pid, the seventh key and id of the segment. Where the kernel lists no segments
    (macOS) it stays: an id alone may be another program's by now.
    """
    with suppress(OSError, ValueError, IndexError):
        lines = (data / "postmaster.pid").read_bytes().split(b"\n")
        key, number = map(int, lines[6].split())
        wanted = (key % 2**32, number, int(lines[0]))
        rows = [[int(word) for word in row.split()] for row in _LISTED_MEMORY.read_bytes().splitlines()[1:]]
        if any((row[0] % 2**32, row[1], row[4]) == wanted for row in rows):
            from ctypes import CDLL

            CDLL(None).shmctl(number, _IPC_RMID, None)


def _gone(pid: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.002)
    return False


def _remove_tree(path: Path) -> None:
    from shutil import rmtree

    if path.is_dir() and not path.is_symlink():
        rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_container(name: str, engine: str) -> None:
    """Remove the container with its volumes, by the engine's HTTP interface or, over ssh and TLS, by ``docker``."""
    scheme, _, place = engine.partition("://")
    if scheme not in {"unix", "http", "tcp"} or os.environ.get("DOCKER_TLS_VERIFY"):
        from subprocess import run

        command = ["docker", "rm", "--force", "--volumes", name]
        run(command, capture_output=True, check=False, timeout=60)  # noqa: S603 - a name of ours
        return
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(place.rstrip("/") if scheme != "unix" else "localhost", timeout=60)
    try:
        if scheme == "unix":
            import socket

            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(60)
            connection.sock.connect(place)
        connection.request("DELETE", f"/containers/{name}?force=1&v=1")
        connection.getresponse().read()
    except HTTPException:
        return
    finally:
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

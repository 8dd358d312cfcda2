"""The supervisor as a program: it starts what it is told, cleans up at every end, and harms nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL
from pathlib import Path

import pytest

from pytest_chatdify_db.servers import supervisor
from pytest_chatdify_db.servers.supervisor import KEPT, LEASE, Job

#: Stands for a server: says who it is, ends on SIGQUIT like PostgreSQL's immediate shutdown.
SERVER = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGQUIT, signal.SIG_IGN); {SERVER}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a run's directory."""
    path = tmp_path / "run"
    path.mkdir()
    (path / LEASE).touch()
    return path


def job_for(directory: Path, code: str = SERVER) -> Job:
    """Return a job: a program that stands for the server, and a data directory with a file in it."""
    data = directory / "data"
    data.mkdir()
    (data / "file").touch()
    argv = [sys.executable, "-c", code, str(data)]
    log = str(directory / "log")
    return {
        "command": {"argv": argv, "user": None, "group": None, "log": log},
        "data": str(data),
        "container": None,
        "engine": "",
    }


@contextmanager
def supervised(directory: Path, job: Job) -> Iterator[subprocess.Popen[str]]:
    """Start the supervisor as the plugin does."""
    path = directory / "server.job"
    path.write_text(json.dumps(job))
    command = [sys.executable, "-I", "-S", supervisor.__file__, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
    ) as process:
        yield process


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line of the supervisor."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def heard_to_the_end(process: subprocess.Popen[str]) -> list[str]:
    """Return what the supervisor says until it has ended."""
    assert process.stdout is not None
    return process.stdout.read().split("\n")[:-1]


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Send a line to the supervisor."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")


def is_alive(pid: int) -> bool:
    """Return whether there is such a process and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def held(lease: Path) -> int:
    """Take *lease* as the owner of a run does."""
    descriptor = os.open(lease, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    return descriptor


def is_held(lease: int) -> bool:
    """Whether another process holds the open *lease*."""
    try:
        fcntl.lockf(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.lockf(lease, fcntl.LOCK_UN)
    return False


def test_the_server_lives_until_the_lease_ends(directory: Path) -> None:
    """While the owner holds the lease the server runs; then server, data and the run's directory go."""
    lease = held(directory / LEASE)
    with supervised(directory, job_for(directory)) as process:
        tell(process, "go")
        pid = int(said(process).removeprefix("started "))
        tell(process, "keep")

        assert is_alive(pid)
        assert (directory / "data" / "file").exists()

        os.close(lease)

        assert heard_to_the_end(process) == ["exited -3"]
        assert not is_alive(pid)
        assert not directory.exists()


def test_the_server_goes_on_while_databases_are_kept(directory: Path) -> None:
    """The end of the lease does not end it, the end of the file that says so does."""
    lease = held(directory / LEASE)
    (directory / KEPT).touch()
    with supervised(directory, job_for(directory)) as process:
        tell(process, "go")
        pid = int(said(process).removeprefix("started "))
        tell(process, "keep")
        os.close(lease)
        held_again = os.open(directory / LEASE, os.O_RDWR)
        # It takes the lease, and so tells other runs that this one is not over.
        while not is_held(held_again):
            pass

        assert is_alive(pid)

        (directory / KEPT).unlink()

        assert heard_to_the_end(process) == ["exited -3"]
        assert not directory.exists()
    os.close(held_again)


@pytest.mark.parametrize(("exists", "is_running", "lasts"), [(False, True, 60), (True, False, 60), (True, True, 0)])
def test_the_end_of_interest(tmp_path: Path, exists: bool, is_running: bool, lasts: float) -> None:
    """Interest ends with the file, with the server, and in any case after some time."""
    if exists:
        (tmp_path / KEPT).touch()

    supervisor.await_end_of_interest(tmp_path / KEPT, lambda: is_running, lasts)


@pytest.mark.parametrize("lines", [[], ["nonsense"], ["go"]])
def test_a_start_that_is_given_up_leaves_nothing(directory: Path, lines: list[str]) -> None:
    """The end of the pipe before "keep" removes server and data at once, but not the run, which goes on."""
    lease = held(directory / LEASE)
    with supervised(directory, job_for(directory)) as process:
        for line in lines:
            tell(process, line)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        answers = process.stdout.read()

        assert not (directory / "data").exists()
        assert not (directory / "server.job").exists()
        assert not any(is_alive(int(word)) for word in answers.split() if word.isdigit())
        assert directory.exists()
    os.close(lease)


def test_the_end_of_the_server_is_told(directory: Path) -> None:
    """A server that ends by itself is reported with its exit code."""
    with supervised(directory, job_for(directory, "raise SystemExit(3)")) as process:
        tell(process, "go")

        assert said(process).startswith("started ")
        assert said(process) == "exited 3"


def test_a_server_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time is over a server is ended by force."""
    server = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    monkeypatch.setattr(supervisor, "_PATIENCE", 0.05)
    supervisor._end(server.pid)
    server.stdout.close()
    server.wait()

    assert not is_alive(server.pid)


def test_sigterm_cleans_up(directory: Path) -> None:
    """A supervisor that is asked to end does its work first."""
    lease = held(directory / LEASE)
    with supervised(directory, job_for(directory)) as process:
        tell(process, "go")
        pid = int(said(process).removeprefix("started "))
        os.kill(_parent(pid), signal.SIGTERM)

        assert heard_to_the_end(process) == ["exited -3"]
        assert not is_alive(pid)
        assert not (directory / "data").exists()
    os.close(lease)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_it_leaves_its_parent(directory: Path) -> None:
    """The process that was started ends at once, and so leaves no child to wait for; the terminal's Ctrl-C is far."""
    lease = held(directory / LEASE)
    with supervised(directory, job_for(directory)) as process:
        assert process.wait() == 0
        tell(process, "go")
        pid = int(said(process).removeprefix("started "))

        assert _parent(pid) != process.pid
        assert os.getsid(pid) not in {os.getsid(0), process.pid}
        assert os.getsid(_parent(pid)) == process.pid
    os.close(lease)


# -- What a later run does for a supervisor that was killed


def test_the_job_of_a_killed_supervisor_is_done(directory: Path) -> None:
    """The server that a data directory names is ended, and the data removed."""
    job = job_for(directory)
    assert job["command"] is not None
    with subprocess.Popen(job["command"]["argv"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        (directory / "data" / "postmaster.pid").write_text(f"{server.pid}\n{directory}\n")
        (directory / "server.job").write_text(json.dumps(job))
        supervisor.clean_jobs(directory)

        assert not is_alive(server.pid)
        assert not (directory / "data").exists()


def test_a_pid_that_belongs_to_another_process_is_spared(directory: Path) -> None:
    """Only a process whose command line names the data directory is the server of it."""
    job = job_for(directory)
    (directory / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    supervisor.clean(job)

    assert not (directory / "data").exists()


@pytest.mark.parametrize("is_the_servers", [True, False])
def test_shared_memory_of_a_killed_server_is_freed(directory: Path, is_the_servers: bool) -> None:
    """It would outlive all processes; a segment that somebody else has made by now is left alone."""
    job = job_for(directory)
    libc = CDLL(None)
    number = libc.shmget(0, 56, 0o600)  # IPC_PRIVATE
    pid = os.getpid() if is_the_servers else os.getppid()
    (directory / "data" / "postmaster.pid").write_text(f"{pid}\n{directory}\n1\n5432\n/tmp\n\n        0 {number:9}\n")
    supervisor.clean(job)
    is_left = any(row.split()[1] == str(number) for row in Path("/proc/sysvipc/shm").read_text().splitlines())
    libc.shmctl(number, 0, None)

    assert is_left is not is_the_servers
    assert not (directory / "data").exists()


@pytest.mark.parametrize("text", ["", "no json", "{}", "[]"])
def test_a_broken_job_file_is_passed_over(directory: Path, text: str) -> None:
    """What cannot be read cannot be done."""
    (directory / "a.job").write_text(text)
    supervisor.clean_jobs(directory)

    assert (directory / "a.job").exists()


def test_waiting_for_a_lease_that_does_not_exist(tmp_path: Path) -> None:
    """A run whose directory is gone is over."""
    assert supervisor.wait_for_end_of(tmp_path / LEASE) is None


def test_remove_run_twice(directory: Path) -> None:
    """A directory that is gone is no error."""
    supervisor.remove_run(directory)
    supervisor.remove_run(directory)

    assert not directory.exists()


# -- Containers


class Engine:
    """A Docker engine on a unix or TCP socket that notes the request and answers it."""

    def __init__(self, listener: socket.socket) -> None:
        self.request = b""
        self._thread = threading.Thread(target=self._serve, args=(listener,))
        self._thread.start()

    def _serve(self, listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            self.request = peer.recv(10_000)
            peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def heard(self) -> str:
        """Return the first line of the request."""
        self._thread.join()
        return self.request.split(b"\r\n")[0].decode()


def container_job(engine: str) -> Job:
    """Return the job to remove a container."""
    return {"command": None, "data": None, "container": "chatdify-db-x", "engine": engine}


REMOVAL = "DELETE /containers/chatdify-db-x?force=1&v=1 HTTP/1.1"


def test_a_container_is_removed_by_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With force and with its volumes."""
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        engine = Engine(listener)
        supervisor.clean(container_job(f"unix://{tmp_path / 's'}"))

        assert engine.heard() == REMOVAL


def test_a_container_is_removed_by_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of DOCKER_HOST=tcp://... is asked in the same way."""
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = Engine(listener)
        supervisor.clean(container_job(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))

        assert engine.heard() == REMOVAL


def test_a_container_behind_ssh_is_removed_by_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs more than HTTP is left to the command that can do it."""
    command = tmp_path / "docker"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    supervisor.clean(container_job("ssh://host"))

    assert (tmp_path / "said").read_text() == "rm --force --volumes chatdify-db-x\n"


def test_an_engine_that_is_gone_is_no_error(directory: Path) -> None:
    """With the engine its containers are gone, and the rest is cleaned all the same."""
    job = job_for(directory)
    for engine in (f"unix://{directory / 'none'}", "tcp://127.0.0.1:1"):
        supervisor.clean({**job, "container": "chatdify-db-x", "engine": engine})

    assert not (directory / "data").exists()

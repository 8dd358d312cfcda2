"""Processes that the tests start: PostgreSQL, PgBouncer, Redis, workers. Loopback only, ended by their owner."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg2

from tests import forkserver

ROOT = Path(__file__).parents[3]
START_SECONDS = 60
POLL_SECONDS = 0.02


class Workshop:
    """A directory, and the processes started in it; leaving the ``with`` block ends and removes them.

    PostgreSQL and PgBouncer refuse to run as root and must then reach their files as another user, to whom pytest's
    own directories are closed.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="app-tests-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            self.directory.chmod(0o755)
        self.hand_over(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(
        self,
        command: Sequence[str | Path],
        *,
        ready: Callable[[], bool],
        as_server_user: bool = False,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process and return once *ready* answers True.

        Args:
            command: Program and arguments.
            ready: Asked every few milliseconds.
            as_server_user: Whether it must not run as root.
            environment: Variables beside the present ones.
            cwd: Its directory; by default the workshop's.
        """
        log = self.directory / f"{Path(command[0]).name}-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self.user if as_server_user else None,
                env={**os.environ, **(environment or {})},
                cwd=cwd or self.directory,
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(POLL_SECONDS)
        return process

    def run(self, *command: str | Path, as_server_user: bool = False) -> None:
        """Run *command* to its end.

        Args:
            *command: Program and arguments.
            as_server_user: Whether it must not run as root.
        """
        done = subprocess.run(
            list(map(str, command)),
            user=self.user if as_server_user else None,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file that only the servers' user can read, and return its path."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        self.hand_over(path)
        return path

    def hand_over(self, path: Path) -> None:
        """Make *path* the servers' user's own."""
        if self.user:
            shutil.chown(path, self.user)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL.

    Args:
        port: Where it listens on 127.0.0.1.
        directory: Holds ``ca.crt``, ``client.crt``, ``client.key`` and its socket.
        password: Of the roles ``postgres`` and ``anna``.
    """

    port: int
    directory: Path
    password: str

    @classmethod
    def start(cls, workshop: Workshop) -> Self:
        """Start one in *workshop*: roles by password over TLS or not, ``carla`` by her certificate alone."""
        binaries = postgres_binaries()
        password = "s3cr3t-Zq@/%"
        words = workshop.write("password", password)
        data = workshop.directory / "data"
        workshop.run(
            binaries / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", words,
            "--no-sync", "-E", "UTF8", as_server_user=True,
        )  # fmt: skip
        _make_certificates(workshop)
        access = workshop.write(
            "pg_hba.conf",
            "hostssl all carla 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
            "host all all 127.0.0.1/32 scram-sha-256\nlocal all all scram-sha-256\n",
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(workshop.directory),
            "hba_file": str(access),
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(workshop.directory / "server.crt"),
            "ssl_key_file": str(workshop.directory / "server.key"),
            "ssl_ca_file": str(workshop.directory / "ca.crt"),
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = cls(port, workshop.directory, password)
        workshop.start([binaries / "postgres", "-D", data, *arguments], ready=server._answers, as_server_user=True)
        server.execute("CREATE ROLE carla LOGIN")
        return server

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=self.password, dbname="postgres"
        )
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()

    def parts(self, port: int | None = None) -> dict[str, str]:
        """Return the variables that name this server part by part."""
        return {
            "DATABASE_URL": "",
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DB": "postgres",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(port or self.port),
        }

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True


def run_python(
    code: str, environment: Mapping[str, str] | None = None, *, cwd: Path = ROOT, timeout: float = 120, given: str = ""
) -> str:
    """Run *code* in a process of its own that fails on any warning, and return what it prints.

    Args:
        code: The program.
        environment: Variables beside the present ones.
        cwd: Its directory.
        timeout: Seconds it may take.
        given: What it reads from its standard input.
    """
    done = forkserver.run(
        ["-W", "error", "-c", code],
        cwd=cwd,
        environment={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        given=given,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def free_port() -> int:
    """Return a TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Return whether something listens on *port*."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name: str) -> str:
    """Return the path of an installed program."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is not installed; on Debian: apt-get install {name}"
    return path


def postgres_binaries() -> Path:
    """Return a directory of PostgreSQL's programs, which must be built with TLS, as a distribution's are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    return Path(program("initdb")).parent


def _make_certificates(workshop: Workshop) -> None:
    """Make an authority, and certificates of it for the server ``localhost`` and the role ``carla``."""
    openssl = program("openssl")
    key = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    path = workshop.directory.joinpath
    workshop.run(
        openssl, "req", "-x509", *key, "-subj", "/CN=test authority", "-keyout", path("ca.key"), "-out", path("ca.crt")
    )
    for name, subject in (("server", "localhost"), ("client", "carla")):
        workshop.run(
            openssl, "req", *key[:3], "-subj", f"/CN={subject}",
            "-keyout", path(f"{name}.key"), "-out", path(f"{name}.csr"),
        )  # fmt: skip
        names = workshop.write(f"{name}.ext", f"subjectAltName=DNS:{subject}")
        workshop.run(
            openssl, "x509", "-req", "-days", "2", "-in", path(f"{name}.csr"), "-CA", path("ca.crt"),
            "-CAkey", path("ca.key"), "-CAcreateserial", "-extfile", names, "-out", path(f"{name}.crt"),
        )  # fmt: skip
    workshop.hand_over(path("server.key"))

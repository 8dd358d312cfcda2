"""Programs in processes of their own that start in 20 ms: each is forked from one that has done the imports.

The rule: what is imported ahead is third-party code that nothing here changes. No module of this project and no plugin
that is installed is: how those are found, rewritten and imported is seen in every run.

This file is also the program that is forked, so it imports nothing from the tests.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import IO, Any, Final

_AHEAD: Final = (
    "asyncpg",
    "psycopg2.extras",
    "pydantic_settings",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    given: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program as `subprocess.run` does that captures its output.

    Args:
        arguments: Those of the interpreter: ``-m MODULE`` or ``-c CODE``, before it ``-W error`` or nothing, behind it
            those of the program.
        cwd: The directory to run in.
        environment: Its variables; what starts with ``PYTHON`` has no effect, but ``PYTHONPATH``.
        given: What it reads from its standard input.
        timeout: Seconds after which it is killed; default is never.

    Raises:
        TimeoutExpired: It was killed.
    """
    with TemporaryFile() as source, TemporaryFile() as output, TemporaryFile() as errors:
        source.write(given.encode())
        source.seek(0)
        code = _server().run(arguments, cwd, environment, (source, output, errors), timeout)
        texts = [file.read().decode() for file in (output, errors) if not file.seek(0)]
    return subprocess.CompletedProcess(arguments, code, *texts)


class _ForkServer:
    """The process that others are forked from; one program at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # That of a program is read when it begins.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        self._answers = self._socket.makefile("rb", buffering=0)

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        streams: Sequence[IO[bytes]],
        timeout: float | None,
    ) -> int:
        order = {"arguments": [*arguments], "cwd": str(cwd), "environment": {**environment}}
        socket.send_fds(self._socket, [b"\0"], [stream.fileno() for stream in streams])
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        pid = int(self._answers.readline())
        in_time = bool(select.select([self._answers], [], [], timeout)[0])
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        code = int(self._answers.readline())
        if not in_time:
            assert timeout is not None
            raise subprocess.TimeoutExpired(arguments, timeout)
        return code

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()


@cache
def _server() -> _ForkServer:
    server = _ForkServer()
    atexit.register(server.close)
    return server


# -- The program


def _import_ahead() -> None:
    from _pytest.config import default_plugins  # as pytest imports them itself

    for name in (*(f"_pytest.{plugin}" for plugin in default_plugins), *_AHEAD):
        import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in each process would copy every page


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for every order; return the order in the forked process, and None where no more will come."""
    with _orders_of(connection) as orders:
        for streams, line in orders:
            child = os.fork()
            if child == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                order: dict[str, Any] = json.loads(line)
                return order
            for stream in streams:
                os.close(stream)
            with suppress(BrokenPipeError):
                connection.sendall(b"%d\n" % child)
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return None


@contextmanager
def _orders_of(connection: socket.socket) -> Iterator[Iterator[tuple[list[int], bytes]]]:
    def receive() -> Iterator[tuple[list[int], bytes]]:
        while True:
            begun, streams, _, _ = socket.recv_fds(connection, 1, 3)
            line = lines.readline() if begun else b""
            if not line:
                return
            yield streams, line

    with connection, connection.makefile("rb") as lines:
        yield receive()


def _become(order: dict[str, Any], path: list[str]) -> None:
    """Do as the interpreter does that is started so, with the rest of the *path* for modules."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    arguments: list[str] = order["arguments"]
    if arguments[:2] == ["-W", "error"]:
        sys.warnoptions[:] = ["error"]
        warnings.simplefilter("error")
        arguments = arguments[2:]
    kind, program, *own = arguments
    is_module = {"-m": True, "-c": False}[kind]
    places = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [order["cwd"] if is_module else "", *filter(None, places), *path]
    sys.argv[:] = [kind, *own]
    if is_module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(program, "<string>", "exec", dont_inherit=True), vars(main))


def _main() -> None:
    path = sys.path[1:]  # without the folder of this file
    connection = socket.socket(fileno=int(sys.argv[1]))
    _import_ahead()
    order = _serve(connection)
    if order is not None:
        _become(order, path)


if __name__ == "__main__":
    _main()

"""The starting side of a supervisor: spawn it, tell it to go on, hear of the server's end.

Used as a context manager: whatever ends the block before `keep` makes the supervisor remove everything at once.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from pytest_chatdify_db.servers import supervisor
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.supervisor import JOB_SUFFIX, Job


class Supervision:
    """One supervisor that was started.

    Args:
        run: The run whose end it waits for.
        job: What it starts and removes; written down before it can exist, so that nothing is ever left unknown.
        name: Unique in the run.
    """

    def __init__(self, run: Run, job: Job, name: str) -> None:
        self._path = run.write(f"{name}{JOB_SUFFIX}", json.dumps(job))
        self._heard = b""
        with (run.directory / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, a program of ours
                [sys.executable, "-I", "-S", supervisor.__file__, self._path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                # PGPORT and its like are for clients of the tests' database; a server would take them as its settings.
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                start_new_session=True,
                bufsize=0,
            )

    def go(self) -> None:
        """Have the server started."""
        self._say(b"go\n")

    def keep(self) -> None:
        """Leave the server to the supervisor: it stays until the run ends."""
        self._say(b"keep\n")

    def exit_code(self, within: float) -> int | None:
        """Return the exit code of the server if it ends *within* so many seconds; also of a supervisor that died."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], within)[0]:
            return None
        chunk = os.read(descriptor, 4096)
        self._heard += chunk
        for line in self._heard.decode().splitlines():
            if line.startswith("exited "):
                return int(line.split()[1])
        return None if chunk else -1

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if error is not None:
            # Its end of the pipe closes when all is removed.
            while os.read(self._process.stdout.fileno(), 4096):
                pass
        self._process.stdout.close()
        self._process.wait()

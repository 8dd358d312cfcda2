"""The private directory of one test run and the lease on it, which ends with the process that made it, however it dies.

The lease is a POSIX record lock, because the kernel drops it with its process and a forked child does not inherit it.
Its price is a rule: a process loses the lock when it closes *any* descriptor of the file, so nothing here opens the
lease of a run that belongs to the own process.

A directory is removed by whoever holds its lease: the owner (`Run.close`), the supervisor of a server, or a later run
(`collect_abandoned`). The lease goes last, so a directory without one holds nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pytest_chatdify_db.errors import RunFailed
from pytest_chatdify_db.servers.supervisor import JOB_SUFFIX, KEPT, LEASE, clean_jobs, remove_run

OWNER: Final = "owner"

#: Bytes a root's path may have: 107 for the address of a unix socket, minus the part that is added to it.
_LONGEST_ROOT: Final = 107 - len("/xxxxxxxx/s/.s.PGSQL.5432")

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the directory in it is checked to be ours
_ENOUGH_BYTES: Final = 1 << 30
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class Run:
    """One test run. Made by `create` in the process that owns it, by `attach` in its xdist workers.

    Attributes:
        directory: Its private directory.
        id: Eight random characters, part of the name of everything the run makes.
        is_owner: Whether this process made it and has to close it.
    """

    __slots__ = ("_lease", "_pid", "directory", "id")

    def __init__(self, directory: Path, lease: int | None = None) -> None:
        self.directory = directory
        self.id = directory.name
        self._lease = lease
        self._pid = os.getpid()

    @classmethod
    def create(cls, root: Path | None = None) -> Run:
        """Make a run's directory, readable by its user alone, and take the lease on it.

        Args:
            root: Where; by default the user's directory in shared memory where that is a file system of its own with
                1 GB free, else in the directory for temporary files.

        Raises:
            RunFailed: The directory cannot be made.
        """
        try:
            home = _prepared(root) if root else _root()
            while True:
                directory = home / "".join(secrets.choice(_ALPHABET) for _ in range(8))
                with suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
                    # A janitor may find the directory before it is leased, and then it removes it.
                    with suppress(FileNotFoundError):
                        (directory / OWNER).write_text(str(os.getpid()))
                        lease = _take(directory / LEASE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                        if lease is not None:
                            return cls(directory, lease)
        except OSError as error:
            raise RunFailed.cannot_create(str(error)) from error

    @classmethod
    def attach(cls, directory: str | os.PathLike[str]) -> Run:
        """Return the run in *directory*, made by another process.

        Raises:
            RunFailed: The run is over.
        """
        if not Path(directory, LEASE).exists():
            raise RunFailed.is_over(os.fspath(directory))
        return cls(Path(directory))

    @property
    def is_owner(self) -> bool:
        """Whether this process made the run and has to close it."""
        return self._lease is not None and self._pid == os.getpid()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock *name* of the run, which no other process of it can hold meanwhile; not re-entrant."""
        descriptor = os.open(self.directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def claim(self, name: str) -> bool:
        """Return whether this is the first call for *name* in any process of the run."""
        try:
            (self.directory / name).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def write(self, name: str, text: str) -> Path:
        """Write the file *name* of the run, for its user's eyes only; a reader sees all of it or none."""
        path, draft = self.directory / name, self.directory / f"{name}.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text.encode(errors="surrogateescape"))  # whatever the locale is
        draft.replace(path)
        return path

    def close(self, *, timeout: float = 15.0) -> None:
        """End the run: let supervisors clean up and wait for them, then remove the directory. Owners only.

        Args:
            timeout: Seconds to wait for supervisors. One that takes longer goes on in the background.
        """
        if self._lease is None or not self.is_owner:
            return
        lease, self._lease = self._lease, None
        jobs = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in self.directory.glob(f"*{JOB_SUFFIX}")]
        if not jobs:
            remove_run(self.directory)
        is_kept = (self.directory / KEPT).exists()
        os.close(lease)
        # Supervisors of what is kept take their time: an hour.
        deadline = time.monotonic() + (0 if is_kept else timeout)
        finished = [_wait_until_unlocked(job, deadline) for job in jobs]
        for job in jobs:
            os.close(job)
        if all(finished):
            # A supervisor leaves nothing here; this is for one that was killed.
            _remove_if_over(self.directory)


def collect_abandoned() -> list[Path]:
    """Remove the directories of runs whose owner and supervisors are gone, do what these left undone; return them.

    Only a lease that can be taken shows that a run is over; names and ages do not count.
    """
    found = [path for root in _existing_roots() for path in sorted(root.iterdir())]
    return [path for path in found if not _is_mine(path) and _remove_if_over(path)]


def _is_mine(directory: Path) -> bool:
    try:
        return (directory / OWNER).read_text() == str(os.getpid())
    except OSError:
        return False


def _remove_if_over(directory: Path) -> bool:
    try:
        lease = _take(directory / LEASE, os.O_RDWR)
    except FileNotFoundError:
        # Not leased yet, or removed to the last step; either way it goes only if it is empty.
        with suppress(OSError):
            directory.rmdir()
        return False
    except OSError:
        return False
    if lease is None:
        return False
    try:
        clean_jobs(directory)
        remove_run(directory)
    finally:
        os.close(lease)
    return True


def _take(lease: Path, flags: int) -> int | None:
    """Open and lock *lease*; return the descriptor, or None if somebody holds it or it was removed meanwhile."""
    descriptor = os.open(lease, flags | os.O_CLOEXEC, 0o600)
    with suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    os.close(descriptor)
    return None


def _wait_until_unlocked(job: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.lockf(job, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        else:
            return True


# -- Where runs live


def _candidates() -> Iterator[Path]:
    """Yield the directories that may hold those of runs, best first."""
    name = f"chatdify-db-{os.getuid()}"
    if os.path.ismount(_SHARED_MEMORY):
        yield _SHARED_MEMORY / name
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - the directory in it is checked to be ours
        root = Path(parent, name)
        if len(os.fsencode(root)) <= _LONGEST_ROOT and _is_host(root):
            yield root


def _is_host(root: Path) -> bool:
    """Whether drivers can be told that a socket is below *root*: they send it as UTF-8, and divide hosts at a comma."""
    return os.fsencode(root) == str(root).encode(errors="replace") and not any(mark in str(root) for mark in ",:")


def _existing_roots() -> list[Path]:
    return [root for root in dict.fromkeys(_candidates()) if root.is_dir() and root.stat().st_uid == os.getuid()]


def _root() -> Path:
    """Return the first candidate that has room and is ours; the last one's failure is the answer if none is."""
    *others, last = _candidates()
    for root in others:
        space = os.statvfs(root.parent)
        if space.f_bavail * space.f_frsize >= _ENOUGH_BYTES:
            with suppress(OSError):
                return _prepared(root)
    return _prepared(last)


def _prepared(root: Path) -> Path:
    """Make *root* where it is missing; refuse one that somebody else could write to."""
    with suppress(FileExistsError):
        # Others may pass through: a server that does not run as root has its files below.
        root.mkdir(mode=0o711)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{root} is not a directory that you alone can write to")
    if status.st_mode & 0o011 != 0o011:
        root.chmod(0o711)  # it was made under a umask that allows less
    return root

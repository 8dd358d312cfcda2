"""Which files a piece of code has read: so that what was made from them is made again when one of them has changed.

A trace sees what Python opens, imports and lists on the thread that it watches. Files of the interpreter and of
installed packages do not count.
"""

from __future__ import annotations

import os
import site
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any, Final

_EVENTS: Final = frozenset({"open", "os.listdir", "os.scandir"})
_GONE: Final = "-"

_watching = threading.local()


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the paths of the files and directories that the block reads."""
    _install()
    found: set[str] = set()
    outer, _watching.found = getattr(_watching, "found", None), found
    try:
        yield found
    finally:
        _watching.found = outer


def manifest(paths: Iterable[str]) -> dict[str, str]:
    """Return each of *paths* that is the project's, with a digest of what is in it: the names, for a directory."""
    sources = sorted({_source(path) for path in paths})
    return {path: digest for path in sources if is_of_project(path) and (digest := _digest(path)) != _GONE}


def holds(files: Mapping[str, str]) -> bool:
    """Return whether every file of a `manifest` is as it was."""
    return all(_digest(path) == digest for path, digest in files.items())


def is_of_project(path: str) -> bool:
    """Return whether *path* is a file on a disk, neither the interpreter's nor an installed package's."""
    return path.startswith("/") and not path.startswith(_foreign())


@cache
def _foreign() -> tuple[str, ...]:
    """Return how the paths of files begin that are not the project's."""
    standard = str(Path(os.__file__).parent)
    prefixes = {sys.prefix, sys.exec_prefix} - {"/", "/usr", "/usr/local"}
    packages = [*site.getsitepackages(), site.getusersitepackages(), standard]
    # A device or a process's own view of the system is no input, and reading it may never end.
    return ("/dev/", "/proc/", "/sys/", *(f"{path.rstrip('/')}/" for path in sorted({*prefixes, *packages})))


@cache
def _install() -> None:
    # It cannot be taken out again, and does nothing while nobody watches.
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    found: set[str] | None = getattr(_watching, "found", None)
    if found is None or event not in _EVENTS or (event == "open" and _only_writes(*arguments[1:3])):
        return
    path = arguments[0] if arguments else None
    if isinstance(path, str | bytes | os.PathLike) or path is None:
        with suppress(ValueError, TypeError):
            found.add(os.path.abspath(os.fsdecode(path or ".")))  # noqa: PTH100 - a Path would be made for each file


def _only_writes(mode: object = None, flags: object = 0) -> bool:
    """Return whether a file is opened in this *mode* of `open`, or with these *flags* of `os.open`, not to be read."""
    if isinstance(mode, str):
        return "r" not in mode and "+" not in mode
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _source(path: str) -> str:
    if path.endswith(".pyc"):
        with suppress(ValueError):
            return source_from_cache(path)
    return path


def _digest(path: str) -> str:
    try:
        if os.path.isdir(path):  # noqa: PTH112 - see _note
            names = sorted(name for name in os.listdir(path) if name != "__pycache__")  # noqa: PTH208 - see _note
            return sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]
        if os.path.isfile(path):  # noqa: PTH113 - see _note
            return sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError:
        return _GONE
    return _GONE

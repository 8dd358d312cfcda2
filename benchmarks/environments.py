"""Where a contestant runs: this environment, or a virtual environment of its own, made when it is first needed.

A contestant that cannot run here is said to be so with the reason, found by trying: asking the Docker engine, looking
for the image, installing the packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, Need
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers import engine

#: What every suite needs, in the versions of this environment.
_COMMON: Final = ("sqlalchemy[asyncio]", "asyncpg", "psycopg2-binary", "pytest", "pytest-asyncio")

_INSTALL_SECONDS: Final = 600
_PULL_SECONDS: Final = 120


class Unavailable(Exception):
    """A contestant cannot run on this machine; the text says why."""


@dataclass(slots=True)
class Environments:
    """The interpreters of the contestants.

    Args:
        progress: Takes a line of news.
        image: The image for contestants that start a container.
        with_peers: Whether environments may be made for other projects.
    """

    progress: Callable[[str], None]
    image: str
    with_peers: bool = True
    _found: dict[str, Path | Unavailable] = field(default_factory=dict)

    def python_of(self, contestant: Contestant) -> Path:
        """Return the interpreter that runs *contestant*.

        Raises:
            Unavailable: It cannot run here.
        """
        found = self._found.get(contestant.name)
        if found is None:
            try:
                found = self._find(contestant)
            except Unavailable as error:
                found = error
            self._found[contestant.name] = found
        if isinstance(found, Unavailable):
            raise found
        return found

    def _find(self, contestant: Contestant) -> Path:
        if contestant.is_peer and not self.with_peers:
            raise Unavailable("left out by --no-peers")
        for need in contestant.needs:
            _require(need, self.image)
        if not contestant.requirements:
            return Path(sys.executable)
        return self._virtual(contestant.requirements)

    def _virtual(self, requirements: tuple[str, ...]) -> Path:
        pinned = [f"{name}=={version(name.partition('[')[0])}" for name in _COMMON]
        wanted = [*pinned, *requirements]
        name = sha256(repr((sys.version, wanted)).encode()).hexdigest()[:12]
        home = _cache() / f"{requirements[0].partition('[')[0]}-{name}"
        python = home / "bin" / "python"
        if not (home / "complete").exists():
            self.progress(f"installing {', '.join(requirements)}")
            shutil.rmtree(home, ignore_errors=True)
            _make(home, python, wanted)
            (home / "complete").touch()
        return python


def _make(home: Path, python: Path, packages: list[str]) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is not None:
        commands = [[uv, "venv", "-q", "-p", sys.executable, str(home)]]
        commands += [[uv, "pip", "install", "-q", "--python", str(python), *packages]]
    else:
        commands = [[sys.executable, "-m", "venv", str(home)]]
        commands += [[str(python), "-m", "pip", "install", "-q", *packages]]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"its packages cannot be installed: {error}") from None
        if done.returncode:
            raise Unavailable(f"its packages cannot be installed: {_last_line(done.stderr)}")


def _require(need: Need, image: str) -> None:
    """Raise `Unavailable` if what is needed is not on this machine."""
    if need == "node":
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise Unavailable("needs Node and npm, which are not installed")
        return
    try:
        engine.require(engine.endpoint())
    except ServerUnavailable as error:
        raise Unavailable(f"needs Docker: {error.cause.splitlines()[0]}") from None
    docker = shutil.which("docker")
    if docker is None:
        raise Unavailable("needs the command 'docker', which is not installed")
    if not _succeeds([docker, "image", "inspect", image]) and not _succeeds([docker, "pull", "-q", image]):
        raise Unavailable(f"needs the image {image}, which is not here and cannot be pulled")


def _succeeds(command: list[str]) -> bool:
    try:
        return not subprocess.run(command, capture_output=True, timeout=_PULL_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        return False


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "chatdify-db-benchmarks"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]

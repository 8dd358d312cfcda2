"""Alembic as the source of the schema: the template is what ``alembic upgrade heads`` makes of an empty database.

Nothing here imports Alembic: a run that finds its template needs none of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pytest_chatdify_db import redirect
from pytest_chatdify_db.contents import alembic_files, sources
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.postgres.address import Address

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from pytest_chatdify_db.contents.alembic_program import Answer, Request

#: The first part is raised when the making of a template changes.
_PACKAGES: Final = ("alembic", "sqlalchemy")
_FORM: Final = "alembic 1"
_TAIL: Final = 20
_DISK_FULL: Final = "53100"


def recipe(config: Path, seed: Callable[[Session], object] | None, *, unknown: str) -> Recipe:
    """Return how a template is made by the migrations that *config* leads to.

    Args:
        config: An ``alembic.ini``, or a ``pyproject.toml``.
        seed: Stores rows afterwards; None for none.
        unknown: What stands for an input that cannot be told from another; it has to differ from run to run.

    Raises:
        SchemaError: There is no such file, or no Alembic.
    """
    config = config.absolute()
    require(config)
    parts = [_FORM, str(config), ".".join(map(str, sys.version_info[:2])), *map(_version, _PACKAGES)]
    parts += [text for path in alembic_files.scripts(config) for text in (str(path), path.read_bytes().hex())]
    parts += sources.describe(seed, unknown) if seed is not None else []

    def build(address: Address) -> set[str]:
        files = upgrade(address, config)
        if seed is not None:
            from pytest_chatdify_db.contents import schema

            files |= schema.plant(address, seed)
        return files

    return Recipe.of(parts, build, unknown=unknown)


def require(config: Path) -> None:
    """Return if there is a file *config*, and Alembic to read it.

    Raises:
        SchemaError: There is not.
    """
    if not config.is_file():
        raise SchemaError.no_alembic_ini(str(config), is_directory=config.is_dir())
    if find_spec("alembic") is None:
        raise SchemaError.no_alembic()


def upgrade(address: Address, config: Path) -> set[str]:
    """Bring the database at *address* to all heads; return the paths of the files that this depended on.

    Raises:
        SchemaError: A migration fails; the text names its revision and the server's words.
        TemplateFailed: The server's disk is full.
    """
    answer, output = _run("upgrade", address, config)
    if answer["sqlstate"] == _DISK_FULL:
        raise TemplateFailed.disk_full(answer["error"])
    if answer["error"]:
        raise SchemaError.migration_failed(str(config), answer["revision"], answer["file"], answer["error"], output)
    return set(answer["files"])


def difference(address: Address, config: Path) -> str:
    """Return, as Python, the migration that would make the database at *address* like the models; empty for none.

    Raises:
        SchemaError: They cannot be compared: ``env.py`` names no models, or fails.
    """
    answer, output = _run("compare", address, config)
    if answer["error"]:
        raise SchemaError.cannot_compare(str(config), answer["error"], output)
    return answer["difference"].strip()


def _run(action: str, address: Address, config: Path) -> tuple[Answer, str]:
    """Run the program; return its answer and the last lines of what it printed."""
    request: Request = {"action": action, "config": str(config), "url": address.url()}
    theirs, ours = os.pipe()
    with open(theirs, "rb") as answers:  # noqa: PTH123 - a descriptor
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, a program of ours
                [sys.executable, "-m", "pytest_chatdify_db.contents.alembic_program", str(ours)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(ours,),
                cwd=config.parent,
                env=_environment(address),
            )
        finally:
            os.close(ours)
        output, _ = process.communicate(json.dumps(request).encode())
        answer = answers.read()
    lines = "\n".join(output.decode(errors="replace").splitlines()[-_TAIL:])
    if not answer:
        empty: Answer = {"files": [], "difference": "", "revision": "", "file": "", "error": "", "sqlstate": ""}
        return {**empty, "error": f"the process ended with exit code {process.returncode}"}, lines
    return cast("Answer", json.loads(answer)), lines


def _environment(address: Address) -> dict[str, str]:
    """Return ours, with *address* in the place of the sandbox, and this process's path for modules."""
    wanted = {**redirect.variables(address), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if (mode := dict(address.options).get("sslmode")) is not None:
        wanted["PGSSLMODE"] = mode
    environment = {name: value for name, value in os.environ.items() if name not in wanted}
    return {**environment, **{name: value for name, value in wanted.items() if value is not None}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

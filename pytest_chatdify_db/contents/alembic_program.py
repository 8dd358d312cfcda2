"""The program that runs Alembic: in a process of its own, whose environment names one database and no other.

An ``env.py`` may take its address from the environment, from ``sqlalchemy.url`` or from the application's settings, and
may call ``asyncio.run``: none of that would work inside the tests' process, where all of it leads to the sandbox.

It reads a `Request` as JSON from its input, and writes the `Answer` to the file descriptor that its argument names:
what migrations print is not in the way.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypedDict

from alembic import autogenerate, command
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from pytest_chatdify_db import traces
from pytest_chatdify_db.contents import alembic_files


class Request(TypedDict):
    """What to do: ``upgrade`` to all heads, or ``compare`` the database with the models that ``env.py`` names."""

    action: str
    config: str
    url: str


class Answer(TypedDict):
    """What came of it.

    ``files`` are the paths that it depended on; ``difference`` is the migration that is missing, as Python; ``error``
    is empty if all went well, and ``revision`` and ``file`` then name no migration; ``sqlstate`` is the server's code.
    """

    files: list[str]
    difference: str
    error: str
    revision: str
    file: str
    sqlstate: str


_ASYNC: Final = re.compile(r"\basync_engine_from_config\b|\bcreate_async_engine\b|\basyncpg\b|\brun_async\b")
_POSTGRES: Final = re.compile(r"postgresql(\+\w+)?://")
_MOST_WORDS: Final = 2000


def main() -> None:
    """Do what the input says."""
    request: Request = json.loads(sys.stdin.read())
    answer: Answer = {"files": [], "difference": "", "error": "", "revision": "", "file": "", "sqlstate": ""}
    with os.fdopen(int(sys.argv[1]), "w") as out:
        try:
            path = Path(request["config"])
            files = alembic_files.ini(path), alembic_files.project(path)
            with traces.watched() as read:
                config = _config(*files)
                script = ScriptDirectory.from_config(config)
                _set_url(config, script, request["url"])
                if request["action"] == "upgrade":
                    command.upgrade(config, "heads")
                else:
                    answer["difference"] = _difference(config, script)
            answer["files"] = sorted(_inputs(read, path, script))
        except BaseException as error:  # noqa: BLE001 - the process that asked says it, in words for users
            answer["error"] = _words(error)
            answer["revision"], answer["file"] = _place(error)
            answer["sqlstate"] = _sqlstate(error)
        json.dump(answer, out)


def _config(ini: Path | None, project: Path | None) -> Config:
    # Alembic reads the second one since 1.16.
    more: dict[str, Any] = {"toml_file": project} if project is not None and hasattr(Config, "toml_file_name") else {}
    return Config(ini, **more)


def _set_url(config: Config, script: ScriptDirectory, url: str) -> None:
    """Set ``sqlalchemy.url``, with the driver that the configuration names or that ``env.py`` needs."""
    written = _POSTGRES.match(config.get_main_option("sqlalchemy.url") or "")
    scheme = written[0] if written else None
    if scheme is None:
        env = Path(script.env_py_location).read_text("utf-8")
        scheme = "postgresql+asyncpg://" if _ASYNC.search(env) else "postgresql+psycopg2://"
    config.set_main_option("sqlalchemy.url", url.replace("postgresql://", scheme, 1).replace("%", "%%"))


def _difference(config: Config, script: ScriptDirectory) -> str:
    """Return what ``alembic revision --autogenerate`` would write into ``upgrade``; nothing if that is nothing."""
    options: dict[str, Any] = {
        "message": None,
        "autogenerate": True,
        "sql": False,
        "head": "heads",
        "splice": False,
        "branch_label": None,
        "version_path": None,
        "rev_id": None,
        "depends_on": None,
    }
    revisions = autogenerate.RevisionContext(config, script, options)
    rendered: list[str] = []

    def compare(revision: Any, context: Any) -> list[Any]:
        revisions.run_autogenerate(revision, context)
        words = AutogenContext(context)
        for operations in revisions.generated_revisions[-1].upgrade_ops_list:
            rendered.extend(autogenerate.render_op_text(words, operation) for operation in operations.ops)
        return []

    with EnvironmentContext(config, script, fn=compare, as_sql=False, template_args=revisions.template_args):
        script.run_env()
    return "\n".join(rendered)


def _inputs(read: Iterable[str], config: Path, script: ScriptDirectory) -> set[str]:
    """Return those of the paths in *read* on which the schema depends.

    What ``env.py`` imports for comparisons, the application's modules, does not count, or no template would outlive a
    change of the application.
    """
    places = [Path(script.dir), *map(Path, script._version_locations)]
    homes = tuple(f"{place.absolute()}{os.sep}" for place in places)
    code = (".py", ".pyc")
    found = {path for path in read if f"{path}{os.sep}".startswith(homes)}
    found |= {path for path in read if not path.endswith(code) and Path(path).is_file()}
    return found | {str(config.absolute())}


def _words(error: BaseException) -> str:
    original = getattr(error, "orig", None)
    statement = getattr(error, "statement", None)
    said = f"{type(original or error).__name__}: {str(original or error).strip()}"
    return f"{said}\n{statement.strip()}"[:_MOST_WORDS] if isinstance(statement, str) else said[:_MOST_WORDS]


def _sqlstate(error: BaseException) -> str:
    original = getattr(error, "orig", error)
    return str(getattr(original, "pgcode", None) or getattr(original, "sqlstate", None) or "")


def _place(error: BaseException) -> tuple[str, str]:
    """Return the revision whose migration raised *error*, and its file; nothing if it was raised elsewhere."""
    place = ("", "")
    trace = error.__traceback__
    while trace is not None:
        variables = trace.tb_frame.f_globals
        if "down_revision" in variables and "revision" in variables:
            place = (str(variables["revision"]), trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return place


if __name__ == "__main__":
    main()

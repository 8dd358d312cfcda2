"""Who takes part: how each contestant is loaded, what it needs, which suite it runs. Data, no I/O.

What a contestant's user would write is in ``conftests/``, one file for each, to be judged by readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["sync", "async", "both"]
Need = Literal["docker", "node"]

KINDS: Final[tuple[Kind, ...]] = ("sync", "async", "both")

_SQLALCHEMY: Final = {
    "models.py": "models.py",
    "suite_sync.py": "test_sync.py",
    "suite_async.py": "test_async.py",
    "suite_both.py": "test_both.py",
}
_DJANGO: Final = {
    "django_models.py": "shop/models.py",
    "django_settings.py": "shop_settings.py",
    "django_sync.py": "test_sync.py",
    "django_async.py": "test_async.py",
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to test with a database.

    Args:
        name: What tables call it.
        conftest: The file in ``conftests/``, without ``with_`` and the suffix.
        plugins: What pytest loads beside pytest-asyncio; nothing is loaded by itself.
        arguments: Further arguments for pytest.
        ini: Lines of the ini file.
        fixture_loops: Where the event loop of async fixtures that name none comes from.
        requirements: Packages it needs beside those of every suite. Empty if it runs in this environment.
        needs: What must be on the machine.
        is_peer: Whether it stands for another project.
        is_yardstick: Whether it is there for comparison only: no database, or no set-up that a user would have.
        files: The suite: file here, file in the project.
        cannot: Why it cannot run a kind of suite at all.
    """

    name: str
    conftest: str
    plugins: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    ini: tuple[str, ...] = ()
    fixture_loops: Literal["function", "session"] = "function"
    requirements: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    is_peer: bool = False
    is_yardstick: bool = False
    files: Mapping[str, str] = field(default_factory=lambda: dict(_SQLALCHEMY))
    cannot: Mapping[Kind, str] = field(default_factory=dict)


_PLUGIN: Final = ("pytest_chatdify_db",)
_METADATA: Final = ("chatdify_db_metadata = models:Base",)
_EMBEDDED: Final = ("--chatdify-db-server=embedded",)
_ONE_LOOP: Final = ("asyncio_default_test_loop_scope = session",)

THIS: Final = Contestant("chatdify-db", "chatdify_db", _PLUGIN, _EMBEDDED, _METADATA)

ONE_LOOP: Final = Contestant(
    "chatdify-db, one event loop",
    "chatdify_db",
    _PLUGIN,
    _EMBEDDED,
    (*_METADATA, *_ONE_LOOP),
    cannot={"sync": "no loop"},
)

OWN_DATABASE: Final = Contestant(
    "chatdify-db, own databases",
    "chatdify_db",
    _PLUGIN,
    (*_EMBEDDED, "--chatdify-db-isolation=database"),
    _METADATA,
)

NO_DATABASE: Final = Contestant("no database", "no_database", is_yardstick=True)

LIMIT: Final = Contestant(
    "BEGIN/ROLLBACK by hand, open connection",
    "begin_rollback",
    ini=_ONE_LOOP,
    is_yardstick=True,
)

RECIPE: Final = Contestant("SQLAlchemy's recipe", "sqlalchemy_recipe")

#: In the order of the tables.
CONTESTANTS: Final[tuple[Contestant, ...]] = (
    THIS,
    ONE_LOOP,
    OWN_DATABASE,
    NO_DATABASE,
    LIMIT,
    RECIPE,
    Contestant("DELETE from all tables", "delete"),
    Contestant("TRUNCATE all tables", "truncate"),
    Contestant("create_all/drop_all", "create_drop"),
    Contestant(
        "pytest-postgresql",
        "pytest_postgresql",
        ("pytest_postgresql",),
        requirements=("pytest-postgresql", "psycopg[binary]"),
        is_peer=True,
    ),
    Contestant(
        "pytest-mock-resources",
        "pytest_mock_resources",
        ("pytest_mock_resources",),
        requirements=("pytest-mock-resources[docker,postgres-binary]",),
        is_peer=True,
    ),
    Contestant(
        "py-pglite",
        "py_pglite",
        ("py_pglite",),
        ini=("asyncio_mode = auto", *_ONE_LOOP),
        fixture_loops="session",
        requirements=("py-pglite[sqlalchemy,psycopg]",),
        needs=("node",),
        is_peer=True,
        cannot={"both": "serves one connection at a time"},
    ),
    Contestant(
        "pytest-django",
        "pytest_django",
        ("django",),
        ini=("DJANGO_SETTINGS_MODULE = shop_settings",),
        requirements=("pytest-django", "django", "psycopg[binary]"),
        is_peer=True,
        files=_DJANGO,
        cannot={"both": "Django's ORM has one driver"},
    ),
    Contestant(
        "pytest-databases",
        "pytest_databases",
        ("pytest_databases",),
        requirements=("pytest-databases", "psycopg[binary]"),
        needs=("docker",),
        is_peer=True,
    ),
    Contestant(
        "testcontainers' recipe",
        "testcontainers",
        requirements=("testcontainers",),
        needs=("docker",),
        is_peer=True,
    ),
)

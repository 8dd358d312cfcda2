"""The texts of the errors in a test project: what failed, why, and at least one way out."""

from __future__ import annotations

import inspect

import pytest

from pytest_chatdify_db.errors import ChatdifyDBError
from pytest_chatdify_db.mistakes import connections, fixtures, options, schema
from pytest_chatdify_db.mistakes.connections import EarlyUse, IsolationLost, RedirectError, SandboxGone
from pytest_chatdify_db.mistakes.fixtures import FixtureError, LateFixture
from pytest_chatdify_db.mistakes.options import MarkerError, OptionError
from pytest_chatdify_db.mistakes.schema import SchemaError

TEST = "tests/test_it.py::test_it"

# Each message with its first line, its cause, and a part of what it advises.
TEXTS: list[tuple[ChatdifyDBError, str, str, str]] = [
    (
        OptionError.invalid("CHATDIFY_DB_SQL", "environment", "some", ["'off'", "'failed'", "'all'"]),
        "chatdify-db: the option CHATDIFY_DB_SQL is not valid.",
        "its value is 'some' (from the environment)",
        "set it to 'off', 'failed' or 'all'",
    ),
    (
        OptionError.unknown("chatdify_db_sq", "ini file", ["chatdify_db_sql"], ["chatdify_db_sql", "chatdify_db_keep"]),
        "chatdify-db: the option chatdify_db_sq is not known.",
        "there is no such option, so what it says (in the ini file) would count for nothing; "
        "did you mean chatdify_db_sql?",
        "write it as one of chatdify_db_sql, chatdify_db_keep",
    ),
    (
        OptionError.unknown("CHATDIFY_DB_QQ", "environment", [], ["CHATDIFY_DB_SQL"]),
        "chatdify-db: the option CHATDIFY_DB_QQ is not known.",
        "there is no such option, so what it says (in the environment) would count for nothing",
        "write it as one of CHATDIFY_DB_SQL",
    ),
    (
        MarkerError.misspelt(TEST, "chatdify"),
        f"chatdify-db: the marker 'chatdify' of {TEST} is not known.",
        "nobody has registered it, so it would do nothing; did you mean 'chatdify_db'?",
        "markers = chatdify: what it means",
    ),
    (
        SchemaError.models_not_importable("app.db:Base", "shop.modles", "ModuleNotFoundError: shop.modles"),
        "chatdify-db: the models of 'app.db:Base' cannot be imported.",
        "ModuleNotFoundError: shop.modles",
        "DB_MODELS=shop.models,shop.orders",
    ),
    (
        MarkerError.invalid(TEST, "got an unexpected keyword argument 'isolatoin'"),
        f"chatdify-db: the marker 'chatdify_db' of {TEST} is not valid.",
        "got an unexpected keyword argument 'isolatoin'",
        '@pytest.mark.chatdify_db(*, isolation="transaction"|"database", reset_sequences=False, '
        'n_plus_one="off"|"warn"|"error")',
    ),
    (
        EarlyUse.before_start("tests/conftest.py:5 in pytest_sessionstart", "connection refused"),
        "chatdify-db: the database was used before it was running; it starts in the set-up of the first test that "
        "needs it.",
        "tests/conftest.py:5 in pytest_sessionstart connects before that: connection refused",
        "instead of a hook",
    ),
    (
        SchemaError.layer_hidden("/shop/app/__init__.py"),
        "chatdify-db: app.db cannot be imported: the project's own package 'app' hides it.",
        "because of /shop/app/__init__.py Python looks for the modules of 'app' in that directory alone",
        "remove this file",
    ),
    (
        SchemaError.no_alembic_ini("migrations", is_directory=True),
        "chatdify-db: the tests' database cannot be built by migrations: migrations is a directory.",
        "Alembic's configuration, which says where the migrations are, is a file",
        "--chatdify-db-migrations=path/to/alembic.ini",
    ),
    (
        FixtureError.of_one_test("session", "class"),
        "chatdify-db: the fixture 'session' cannot serve a class-scoped one.",
        "it belongs to one test, at whose end it is closed and what it wrote is undone",
        "async with get_async_session() as session",
    ),
    (
        FixtureError.seam_too_narrow("chatdify_db_server"),
        "chatdify-db: the project's fixture 'chatdify_db_server' cannot be used.",
        "its scope is narrower than the run's, and it is asked for once in a run",
        '@pytest.fixture(scope="session")',
    ),
    (
        FixtureError.no_dependency("'user'"),
        "chatdify-db: 'user' is not overridden.",
        "a dependency is the function or class that the routes name in Depends(...), or its alias",
        "the function itself and not its name",
    ),
    (
        FixtureError.no_celery("the task ship", "ship.app"),
        "chatdify-db: the fixture 'celery_eager' cannot run tasks.",
        "it was given the task ship, which is no Celery application",
        "celery_eager(ship.app)",
    ),
    (
        EarlyUse.at_import("tests/test_shop.py:5", "connection refused"),
        "chatdify-db: the database was used while pytest was importing modules; it runs while tests do.",
        "tests/test_shop.py:5 connects when its module is imported: connection refused",
        "chatdify_db_seed",
    ),
    (
        SchemaError.not_importable("shop.models:Base", "ModuleNotFoundError: No module named 'shop'"),
        "chatdify-db: the tables declared at 'shop.models:Base' cannot be loaded.",
        "ModuleNotFoundError: No module named 'shop'",
        "--chatdify-db-metadata=module:attribute",
    ),
    (
        SchemaError.fails_inside("shop.models:Base", "shop/deep.py:3", "ModuleNotFoundError: No module named 'lib'"),
        "chatdify-db: the tables declared at 'shop.models:Base' cannot be loaded.",
        "shop/deep.py:3 raises ModuleNotFoundError: No module named 'lib'",
        "python -c 'import shop.models'",
    ),
    (
        SchemaError.not_metadata("shop.models:Base", "int 3"),
        "chatdify-db: 'shop.models:Base' holds no tables.",
        "it is int 3, neither a declarative Base nor a sqlalchemy.MetaData",
        "name a declarative Base, a MetaData, or a list of them",
    ),
    (
        SchemaError.no_tables("shop.models:Base"),
        "chatdify-db: 'shop.models:Base' has no tables.",
        "no model was imported that declares one, so the tests' database would be empty",
        "import the modules with your models in conftest.py, or, with app.db, name them in DB_MODELS",
    ),
    (
        SchemaError.cannot_create("the table 'places'", 'type "geometry" does not exist'),
        "chatdify-db: the table 'places' cannot be created in the tests' database.",
        'type "geometry" does not exist',
        "an event listener for 'before_create'",
    ),
    (
        SchemaError.no_extension("the extension citext", 'extension "citext" is not available'),
        "chatdify-db: the extension citext cannot be created in the tests' database.",
        'extension "citext" is not available',
        "--chatdify-db-server=container",
    ),
    (
        SchemaError.seed_failed("KeyError: 'name'"),
        "chatdify-db: the data of the fixture chatdify_db_seed cannot be stored.",
        "KeyError: 'name'",
        "called once with a sqlalchemy.orm.Session",
    ),
    (
        RedirectError.engine_exists("app.db"),
        "chatdify-db: the application is connected to another database than the tests' one; no test was run.",
        "app.db made its engine before pytest loaded the plugin chatdify_db",
        "pytest -p chatdify_db -p <the other plugin>",
    ),
    (
        RedirectError.engine_exists("app.db"),
        "chatdify-db: the application is connected to another database than the tests' one; no test was run.",
        "app.db made its engine before pytest loaded the plugin chatdify_db",
        "give it a process of its own, by pytester.runpytest_subprocess() or python -m pytest",
    ),
    (
        RedirectError.variable_changed("DATABASE_URL", "postgresql://u:***@db/shop"),
        "chatdify-db: DATABASE_URL no longer names the tests' database; no test that uses a database was run.",
        "a conftest.py, a plugin or an imported module set it to postgresql://u:***@db/shop after this plugin had set "
        "it",
        "os.environ.setdefault",
    ),
    (
        RedirectError.settings_differ("postgresql://u:***@db/shop"),
        "chatdify-db: the application's settings do not name the tests' database; no test that uses a database was "
        "run.",
        "app.config.get_settings() says postgresql://u:***@db/shop",
        "let the settings take the database from DATABASE_URL",
    ),
    (
        SandboxGone.said("it does not answer"),
        "chatdify-db: the sandbox, the process that holds the tests' transaction, has failed.",
        "it does not answer",
        '@pytest.mark.chatdify_db(isolation="database")',
    ),
    (
        SandboxGone.with_server("terminating connection; and no new session can be had: refused"),
        "chatdify-db: the PostgreSQL server of the tests has gone.",
        "terminating connection; and no new session can be had: refused",
        "if the same test ends it again, run it alone: pytest <its id>",
    ),
    (
        IsolationLost.with_session(TEST, "terminating connection due to administrator command"),
        f"chatdify-db: the server has ended its session while {TEST} was running; what the test wrote is gone.",
        "terminating connection due to administrator command",
        "a test that ends sessions, such as by pg_terminate_backend, needs a database of its own: "
        '@pytest.mark.chatdify_db(isolation="database")',
    ),
    (
        IsolationLost.by(TEST, "a procedure has committed"),
        f"chatdify-db: the isolation of {TEST} was lost.",
        "a procedure has committed",
        '@pytest.mark.chatdify_db(isolation="database")',
    ),
    (
        FixtureError.session_in_sync_test(TEST),
        f"chatdify-db: {TEST} asks for the fixture 'session', an AsyncSession, but is a plain function.",
        "an AsyncSession works in an event loop, and a plain function has none",
        "use the fixture 'sync_session' instead",
    ),
    (
        FixtureError.no_broker("[Errno 111] Connection refused"),
        "chatdify-db: a task was sent to a broker, and none has answered.",
        "[Errno 111] Connection refused",
        "celery_eager(celery_app)",
    ),
    (
        FixtureError.no_async_plugin(TEST),
        f"chatdify-db: {TEST} asks for the fixture 'session', but no plugin runs it in an event loop.",
        "it is 'async def', and neither pytest-asyncio nor anyio takes it",
        "@pytest.mark.asyncio (pip install pytest-asyncio)",
    ),
    (
        FixtureError.two_async_plugins(TEST),
        f"chatdify-db: {TEST} asks for the fixture 'session', but two plugins run it in two event loops.",
        "pytest-asyncio takes the test, because of asyncio_mode = auto or its marker, and anyio takes the async "
        "fixtures, because of the marker anyio or the fixture anyio_backend; a session has one loop",
        "leave the test to anyio: set asyncio_mode = strict in the ini file",
    ),
    (
        FixtureError.wrong_backend(TEST, "trio"),
        f"chatdify-db: {TEST} asks for the fixture 'session', but runs on trio.",
        "SQLAlchemy's AsyncSession works with asyncio only",
        "override the fixture anyio_backend and return 'asyncio' from it",
    ),
    (
        FixtureError.ambiguous(TEST, "session", ["theirs", "ours"]),
        f"chatdify-db: {TEST} asks for the fixture 'session', which 2 plugins define.",
        "it is defined by theirs and by ours",
        "pytest -p no:<name>",
    ),
    (
        FixtureError.unknown_dependency(["app.auth.get_user"], ["app.auth.current_user"], known=7),
        "chatdify-db: app.auth.get_user is not overridden.",
        "no route of the application depends on it (7 dependencies were found); did you mean app.auth.current_user?",
        "the very function that the routes name in Depends(...)",
    ),
    (
        FixtureError.unknown_dependency(["a.one", "a.two"], [], known=7),
        "chatdify-db: a.one, a.two are not overridden.",
        "no route of the application depends on them (7 dependencies were found)",
        "include the router in the application before calling override_dependencies",
    ),
    (
        FixtureError.unknown_task("shop.shp", ["shop.ship"]),
        "chatdify-db: the task 'shop.shp' cannot run eagerly.",
        "no task of this name is registered in the application; did you mean shop.ship?",
        "import the module that defines the task before it is sent",
    ),
    (
        FixtureError.unknown_task("shop.ship", []),
        "chatdify-db: the task 'shop.ship' cannot run eagerly.",
        "no task of this name is registered in the application",
        "correct the name given to send_task",
    ),
    (
        FixtureError.uncallable_override("shop.get_mailer", "unittest.mock.Mock"),
        "chatdify-db: shop.get_mailer is not overridden.",
        "what is given for it, unittest.mock.Mock, takes *args or **kwargs, which FastAPI reads from the query of the "
        "request: every request would be refused with 422",
        "lambda: value",
    ),
    (
        FixtureError.no_hooks(),
        "chatdify-db: the fixture 'capture_on_commit' has nothing to capture.",
        "app.db cannot be imported: this project's package 'app' is another one",
        "its own directory 'app' has no __init__.py",
    ),
    (
        FixtureError.no_uvicorn(),
        "chatdify-db: the fixture 'live_server' cannot serve the application.",
        "uvicorn is not installed",
        "pip install uvicorn",
    ),
    (
        FixtureError.server_not_started(),
        "chatdify-db: the application did not start in the fixture 'live_server'.",
        "its lifespan raised an error; uvicorn's log, in the captured output below, has the traceback",
        "live_server(app, lifespan='off')",
    ),
    (
        LateFixture.after_rows("prices", "module", TEST),
        "chatdify-db: the module-scoped fixture 'prices' is set up too late to store rows.",
        f"{TEST} has written already. What is undone first must be written last, and the rows of 'prices' would have "
        "to stay when those are undone",
        "name it in the test's signature",
    ),
    (
        LateFixture.in_own_database("prices", "module", TEST),
        "chatdify-db: the module-scoped fixture 'prices' is set up too late to store rows.",
        f'{TEST} has a database of its own (isolation="database"), which is dropped when it ends, and the rows of '
        "'prices' with it",
        "give it the scope 'function'",
    ),
    (
        SchemaError.no_alembic_ini("alembic.ini"),
        "chatdify-db: the tests' database cannot be built by migrations: alembic.ini is missing.",
        "there is no such file; a relative path starts at pytest's root directory, one of the command line at the "
        "current one",
        "--chatdify-db-migrations=path/to/alembic.ini",
    ),
    (
        SchemaError.no_alembic(),
        "chatdify-db: the tests' database cannot be built by migrations: Alembic is missing.",
        "the package 'alembic' is not installed in the environment that runs pytest",
        "pip install alembic",
    ),
    (
        SchemaError.migration_failed("alembic.ini", "b2", "versions/two.py", "UndefinedTable: x", "printed"),
        "chatdify-db: the migration b2 failed (versions/two.py).",
        "UndefinedTable: x",
        "correct the migration",
    ),
    (
        SchemaError.cannot_compare("alembic.ini", "ImportError: y", ""),
        "chatdify-db: the migrations cannot be compared with the models.",
        "ImportError: y",
        "context.configure(target_metadata=...)",
    ),
    (
        FixtureError.schema_not_copied(TEST, ["the fixture 'a'", "the fixture 'b'"], ["table x", "index y"]),
        f"chatdify-db: {TEST} cannot have a database of its own.",
        "the fixture 'a' and the fixture 'b' changed the schema, and only rows are copied from the sandbox: "
        "table x, index y",
        "let the fixture be function-scoped: then it works in the test's own database",
    ),
    (
        FixtureError.needs_own_database(TEST, "chatdify_db_concurrency"),
        f"chatdify-db: {TEST} asks for the fixture 'chatdify_db_concurrency', but has no database of its own.",
        "all its clients share one transaction, in which nothing waits and nothing is committed",
        '@pytest.mark.chatdify_db(isolation="database")',
    ),
]


@pytest.mark.parametrize(("error", "what", "cause", "advice"), TEXTS, ids=lambda value: type(value).__name__)
def test_text(error: ChatdifyDBError, what: str, cause: str, advice: str) -> None:
    """The text says what failed, the cause as seen, and how to fix it."""
    first, second, *rest = str(error).splitlines()

    assert first == what
    assert second == f"Cause: {cause}"
    assert "To fix this" in str(error)
    assert any(advice in line for line in rest)


def test_a_cause_of_several_lines() -> None:
    """The migration that is missing is shown below the word, not behind it."""
    text = str(SchemaError.migrations_differ("op.drop_table('x')"))

    assert text.startswith("chatdify-db: the migrations do not make what the models declare.\nCause:\n")
    assert "op.drop_table('x')" in text
    assert "alembic revision --autogenerate" in text


def test_every_message_is_tested() -> None:
    """A message without a line in the table above fails here."""
    families = (connections, fixtures, options, schema)
    classes = [
        each
        for family in families
        for _, each in inspect.getmembers(family, inspect.isclass)
        if each.__module__ == family.__name__
    ]
    written = {name for each in classes for name, value in vars(each).items() if isinstance(value, classmethod)}
    source = inspect.getsource(inspect.getmodule(test_text) or options)

    assert {name for name in written if f".{name}(" not in source} == set()

"""The errors in a test project: a wrong option, marker, schema, use of a fixture, or way out of the sandbox.

ChatdifyDBError
+-- OptionError             an option has a value that is not valid
+-- MarkerError             a test's marker has arguments it does not take
+-- SchemaError             the tables cannot be found, or cannot be created
+-- EarlyUse                the database was used before it could be running
+-- RedirectError           the application would use another database than the tests' one
+-- SandboxGone             the sandbox has ended or does not answer
+-- IsolationLost           a test has left the sandbox's transaction
+-- FixtureError            a fixture was asked for where it cannot work
    +-- LateFixture         a fixture's rows would have to live longer than rows that are there already
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pytest_chatdify_db.errors import ChatdifyDBError


class OptionError(ChatdifyDBError):
    """An option has a value that is not valid."""

    @classmethod
    def invalid(cls, written: str, source: str, value: str, valid: Sequence[str]) -> Self:
        """Say which option, from where, and what it may be."""
        return cls.compose(
            f"chatdify-db: the option {written} is not valid.",
            cause=f"its value is {value!r} (from the {source})",
            fixes=[f"set it to {_alternatives(valid)}", "remove it, to use the default"],
        )

    @classmethod
    def unknown(cls, written: str, source: str, near: Sequence[str], known: Sequence[str]) -> Self:
        """Say that no option has this name."""
        cause = f"there is no such option, so what it says (in the {source}) would count for nothing"
        if near:
            cause += f"; did you mean {_alternatives(near)}?"
        return cls.compose(
            f"chatdify-db: the option {written} is not known.",
            cause=cause,
            fixes=[f"write it as one of {', '.join(known)}", "remove it"],
        )


class MarkerError(ChatdifyDBError):
    """A test's marker has arguments it does not take."""

    @classmethod
    def invalid(cls, test: str, cause: str) -> Self:
        """Say which test, and show the signature."""
        return cls.compose(
            f"chatdify-db: the marker 'chatdify_db' of {test} is not valid.",
            cause=cause,
            fixes=[
                'write it as @pytest.mark.chatdify_db(*, isolation="transaction"|"database", reset_sequences=False, '
                'n_plus_one="off"|"warn"|"error"), '
                "every argument by name",
                "remove it: no marker is needed for a rolled-back transaction",
            ],
        )

    @classmethod
    def misspelt(cls, test: str, name: str) -> Self:
        """Say that a marker is named almost as this plugin's."""
        return cls.compose(
            f"chatdify-db: the marker {name!r} of {test} is not known.",
            cause="nobody has registered it, so it would do nothing; did you mean 'chatdify_db'?",
            fixes=[
                "write it as @pytest.mark.chatdify_db",
                f"register it, if it is yours: markers = {name}: what it means",
            ],
        )


class SchemaError(ChatdifyDBError):
    """The tables cannot be found, or cannot be created."""

    @classmethod
    def not_importable(cls, path: str, cause: str) -> Self:
        """Say what the import of *path* raised."""
        return cls.compose(
            f"chatdify-db: the tables declared at {path!r} cannot be loaded.",
            cause=cause,
            fixes=[
                "name the object that holds your tables: --chatdify-db-metadata=module:attribute, or in the ini file "
                "chatdify_db_metadata = module:attribute",
                "let the module be found: run pytest from the project's root, or set pythonpath in the ini file",
                "override the fixture chatdify_db_metadata in conftest.py and return the Base or MetaData from it",
            ],
        )

    @classmethod
    def models_not_importable(cls, path: str, modules: str, cause: str) -> Self:
        """Say which of the *modules* with the models of *path* cannot be imported."""
        return cls.compose(
            f"chatdify-db: the models of {path!r} cannot be imported.",
            cause=cause,
            tried=[f"the modules that DB_MODELS names: {modules}"],
            fixes=[
                "name the modules that define your models: DB_MODELS=shop.models,shop.orders",
                "let them be found: run pytest from the project's root, or set pythonpath in the ini file",
                "name the object that holds your tables, if it is another one, in the ini file: "
                "chatdify_db_metadata = module:attribute",
            ],
        )

    @classmethod
    def fails_inside(cls, path: str, line: str, cause: str) -> Self:
        """Say which *line* raised while the module of *path*, which was found, was imported."""
        return cls.compose(
            f"chatdify-db: the tables declared at {path!r} cannot be loaded.",
            cause=f"{line} raises {cause}",
            fixes=[
                "correct that line; importing the module by itself shows all of it: "
                f"python -c 'import {path.partition(':')[0]}'",
                "name another object that holds your tables: --chatdify-db-metadata=module:attribute",
            ],
        )

    @classmethod
    def not_metadata(cls, path: str, found: str) -> Self:
        """Say what was found instead of a declarative Base or a MetaData."""
        return cls.compose(
            f"chatdify-db: {path!r} holds no tables.",
            cause=f"it is {found}, neither a declarative Base nor a sqlalchemy.MetaData",
            fixes=[
                "name a declarative Base, a MetaData, or a list of them: --chatdify-db-metadata=module:attribute",
                "override the fixture chatdify_db_metadata in conftest.py and return one of these",
            ],
        )

    @classmethod
    def no_tables(cls, path: str) -> Self:
        """Say that the models were probably not imported."""
        return cls.compose(
            f"chatdify-db: {path!r} has no tables.",
            cause="no model was imported that declares one, so the tests' database would be empty",
            fixes=[
                "import the modules with your models in conftest.py, or, with app.db, name them in DB_MODELS",
                "name the metadata that has them: --chatdify-db-metadata=module:attribute",
                "override the fixture chatdify_db_metadata in conftest.py, if the database is meant to be empty",
            ],
        )

    @classmethod
    def cannot_create(cls, what: str, cause: str) -> Self:
        """Say which table, index or type the server refused, and why."""
        return cls.compose(
            f"chatdify-db: {what} cannot be created in the tests' database.",
            cause=cause,
            fixes=[
                "correct its declaration",
                "create what it needs (an extension, a type, a schema) by an event listener for 'before_create' on its "
                "metadata",
                "build the schema by migrations: --chatdify-db-migrations=alembic.ini",
            ],
        )

    @classmethod
    def seed_failed(cls, cause: str) -> Self:
        """Say what the project's seed raised."""
        return cls.compose(
            "chatdify-db: the data of the fixture chatdify_db_seed cannot be stored.",
            cause=cause,
            fixes=[
                "correct the function that chatdify_db_seed returns: it is called once with a sqlalchemy.orm.Session "
                "on the database that all tests' databases are copies of",
            ],
        )

    @classmethod
    def no_alembic_ini(cls, path: str, *, is_directory: bool = False) -> Self:
        """Say that the option ``migrations`` names no file."""
        what = "missing"
        cause = (
            "there is no such file; a relative path starts at pytest's root directory, one of the command line at the "
            "current one"
        )
        if is_directory:
            what = "a directory"
            cause = "Alembic's configuration, which says where the migrations are, is a file"
        return cls.compose(
            f"chatdify-db: the tests' database cannot be built by migrations: {path} is {what}.",
            cause=cause,
            fixes=[
                "name the file: --chatdify-db-migrations=path/to/alembic.ini, or path/to/pyproject.toml",
                "remove the option, to create the tables from the metadata",
            ],
        )

    @classmethod
    def layer_hidden(cls, file: str) -> Self:
        """Say that the project's *file* hides the installed ``app.db``."""
        return cls.compose(
            "chatdify-db: app.db cannot be imported: the project's own package 'app' hides it.",
            cause=f"because of {file} Python looks for the modules of 'app' in that directory alone",
            fixes=[
                "remove this file: without it the project's modules lie beside the installed app.db",
                "do without app.db, if 'app' is meant to be another package: "
                "--chatdify-db-metadata=module:attribute names its tables",
            ],
        )

    @classmethod
    def no_alembic(cls) -> Self:
        """Say that the package is not installed."""
        return cls.compose(
            "chatdify-db: the tests' database cannot be built by migrations: Alembic is missing.",
            cause="the package 'alembic' is not installed in the environment that runs pytest",
            fixes=["pip install alembic", "remove the option migrations, to create the tables from the metadata"],
        )

    @classmethod
    def migration_failed(cls, config: str, revision: str, file: str, cause: str, output: str) -> Self:
        """Say which migration failed, and why; without a *revision*, that Alembic did not get to one."""
        what = f"the migration {revision} failed ({file})" if revision else "the migrations cannot be run"
        return cls.compose(
            f"chatdify-db: {what}.",
            cause=cause,
            tried=[
                f"alembic -c {config} upgrade heads, on an empty database",
                *([f"its output ended in:\n{output}"] if output else []),
            ],
            fixes=[
                "correct the migration" if revision else "correct env.py or its configuration",
                "let env.py take the database from DATABASE_URL or from sqlalchemy.url: both name the one to migrate",
            ],
        )

    @classmethod
    def cannot_compare(cls, config: str, cause: str, output: str) -> Self:
        """Say why models and migrations cannot be compared."""
        return cls.compose(
            "chatdify-db: the migrations cannot be compared with the models.",
            cause=cause,
            tried=[f"alembic -c {config} check", *([f"its output ended in:\n{output}"] if output else [])],
            fixes=["let env.py give the models' metadata to context.configure(target_metadata=...)"],
        )

    @classmethod
    def migrations_differ(cls, difference: str) -> Self:
        """Show the migration that is missing."""
        return cls.compose(
            "chatdify-db: the migrations do not make what the models declare.",
            cause=f"this migration is missing:\n{difference}",
            fixes=[
                "write it:  alembic revision --autogenerate -m '...'",
                "correct the models",
                "leave out what the models do not own, by include_object or include_name in env.py",
            ],
        )


class EarlyUse(ChatdifyDBError):
    """The database was used before it could be running."""

    @classmethod
    def at_import(cls, line: str, cause: str) -> Self:
        """Say which line of the project connects while modules are imported."""
        return cls.compose(
            "chatdify-db: the database was used while pytest was importing modules; it runs while tests do.",
            cause=f"{line} connects when its module is imported: {cause}",
            fixes=[
                "do it in a function that is called while a test runs, in the application's lifespan, or in a fixture",
                "let every test start with rows: return a function that stores them from the fixture chatdify_db_seed",
            ],
        )

    @classmethod
    def before_start(cls, line: str, cause: str) -> Self:
        """Say which line of the project connects before the database was started."""
        return cls.compose(
            "chatdify-db: the database was used before it was running; it starts in the set-up of the first test that "
            "needs it.",
            cause=f"{line} connects before that: {cause}",
            fixes=[
                "do it in a fixture, or in a function that is called while a test runs, instead of a hook",
                "let every test start with rows: return a function that stores them from the fixture "
                "chatdify_db_seed; it is called later, with a session",
                "if this is a fixture of the test: import app.db at the top of the test's module, ask for a fixture "
                "such as sync_session, or mark the test with @pytest.mark.chatdify_db",
            ],
        )


class RedirectError(ChatdifyDBError):
    """The application would use another database than the tests' one."""

    @classmethod
    def engine_exists(cls, module: str) -> Self:
        """Say that an engine was made before the plugin could redirect it."""
        return cls.compose(
            "chatdify-db: the application is connected to another database than the tests' one; no test was run.",
            cause=f"{module} made its engine before pytest loaded the plugin chatdify_db",
            fixes=[
                "name this plugin first: pytest -p chatdify_db -p <the other plugin>",
                "let the plugin or .pth file that imports the application make no connection when it is imported",
            ],
        )

    @classmethod
    def variable_changed(cls, name: str, shown: str) -> Self:
        """Say that something set the variable *name* after the plugin had."""
        return cls.compose(
            f"chatdify-db: {name} no longer names the tests' database; no test that uses a database was run.",
            cause=f"a conftest.py, a plugin or an imported module set it to {shown} after this plugin had set it",
            fixes=[
                f"remove the line that sets {name}: the plugin points it to the tests' database from before the first "
                "conftest.py until the end of the run",
                "set it only where it is missing: os.environ.setdefault",
                "name a server for the tests by --chatdify-db-server=URL",
            ],
        )

    @classmethod
    def settings_differ(cls, shown: str) -> Self:
        """Say that the application's settings name another server."""
        return cls.compose(
            "chatdify-db: the application's settings do not name the tests' database; no test that uses a database was "
            "run.",
            cause=f"app.config.get_settings() says {shown}",
            fixes=[
                "let the settings take the database from DATABASE_URL",
                "call app.config.get_settings.cache_clear() after changing the settings by hand",
            ],
        )


class SandboxGone(ChatdifyDBError):
    """The sandbox has ended or does not answer."""

    @classmethod
    def said(cls, cause: str) -> Self:
        """Say what the sandbox said."""
        return cls.compose(
            "chatdify-db: the sandbox, the process that holds the tests' transaction, has failed.",
            cause=cause,
            fixes=[
                "run pytest again; if the same test fails again, run it alone: pytest <its id>",
                'give that test a database of its own: @pytest.mark.chatdify_db(isolation="database")',
            ],
        )

    @classmethod
    def with_server(cls, cause: str) -> Self:
        """Say that the server has gone."""
        return cls.compose(
            "chatdify-db: the PostgreSQL server of the tests has gone.",
            cause=cause,
            fixes=[
                "run pytest again, which starts a server anew where the plugin does that; "
                "if the same test ends it again, run it alone: pytest <its id>",
                "see what ends it: too little memory or disk, or somebody who stops it; "
                "pytest --chatdify-db-doctor starts one and says what each step took",
            ],
        )


class IsolationLost(ChatdifyDBError):
    """A test has left the sandbox's transaction, or the server has ended it."""

    @classmethod
    def by(cls, test: str, cause: str) -> Self:
        """Say that the test's work could not be undone as a rollback."""
        return cls.compose(
            f"chatdify-db: the isolation of {test} was lost.",
            cause=cause,
            tried=[
                "every BEGIN, COMMIT and ROLLBACK of a client is followed inside one transaction, which is rolled back"
            ],
            fixes=[
                'give the test a database of its own: @pytest.mark.chatdify_db(isolation="database")',
                "end transactions by COMMIT and ROLLBACK of the driver, not inside a procedure or a DO block",
            ],
        )

    @classmethod
    def with_session(cls, test: str, cause: str) -> Self:
        """Say that the server has ended the session that all clients of the test share."""
        return cls.compose(
            f"chatdify-db: the server has ended its session while {test} was running; what the test wrote is gone.",
            cause=cause,
            tried=["another session was opened for the tests to come"],
            fixes=[
                "a test that ends sessions, such as by pg_terminate_backend, needs a database of its own: "
                '@pytest.mark.chatdify_db(isolation="database")',
                "else see what has ended it: too little memory or disk, or somebody who did it by hand",
            ],
        )


class FixtureError(ChatdifyDBError):
    """A fixture was asked for where it cannot work."""

    @classmethod
    def session_in_sync_test(cls, test: str) -> Self:
        """Say that the AsyncSession needs an event loop."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture 'session', an AsyncSession, but is a plain function.",
            cause="an AsyncSession works in an event loop, and a plain function has none",
            fixes=["use the fixture 'sync_session' instead", "make it 'async def'"],
        )

    @classmethod
    def of_one_test(cls, fixture: str, scope: str) -> Self:
        """Say that a fixture of a test's own was asked for by one of a wider *scope*."""
        opened = "async with get_async_session()" if fixture == "session" else "with get_sync_session()"
        return cls.compose(
            f"chatdify-db: the fixture {fixture!r} cannot serve a {scope}-scoped one.",
            cause="it belongs to one test, at whose end it is closed and what it wrote is undone",
            fixes=[
                f"let the wider fixture open a session of its own: {opened} as session, or the project's own factory; "
                "its rows live as long as the fixture",
                "give the other fixture the scope 'function'",
                "for rows that every test starts with, return a function from chatdify_db_seed: it is given a session",
            ],
        )

    @classmethod
    def seam_too_narrow(cls, fixture: str) -> Self:
        """Say that a fixture that the start asks for was overridden with a narrower scope."""
        return cls.compose(
            f"chatdify-db: the project's fixture {fixture!r} cannot be used.",
            cause="its scope is narrower than the run's, and it is asked for once in a run",
            fixes=['write it as @pytest.fixture(scope="session")'],
        )

    @classmethod
    def schema_not_copied(cls, test: str, fixtures: Sequence[str], missing: Sequence[str]) -> Self:
        """Say what wider fixtures have made that a database of the test's own cannot have."""
        shown = [*missing[:5], *([f"and {len(missing) - 5} more"] if len(missing) > 5 else [])]
        return cls.compose(
            f"chatdify-db: {test} cannot have a database of its own.",
            cause=f"{' and '.join(fixtures)} changed the schema, and only rows are copied from the sandbox: "
            + ", ".join(shown),
            fixes=[
                "let the fixture be function-scoped: then it works in the test's own database",
                "make the change in chatdify_db_seed: then every database has it",
                'let the test run with isolation="transaction"',
            ],
        )

    @classmethod
    def needs_own_database(cls, test: str, fixture: str) -> Self:
        """Say that there is one session behind all clients of the test."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture {fixture!r}, but has no database of its own.",
            cause="all its clients share one transaction, in which nothing waits and nothing is committed",
            fixes=['mark the test, class or module with @pytest.mark.chatdify_db(isolation="database")'],
        )

    @classmethod
    def no_async_plugin(cls, test: str) -> Self:
        """Say that no plugin runs the test's coroutine."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture 'session', but no plugin runs it in an event loop.",
            cause="it is 'async def', and neither pytest-asyncio nor anyio takes it",
            fixes=[
                "mark it with @pytest.mark.asyncio (pip install pytest-asyncio)",
                "set asyncio_mode = auto in the ini file",
                "mark it with @pytest.mark.anyio",
            ],
        )

    @classmethod
    def wrong_backend(cls, test: str, backend: str) -> Self:
        """Say that SQLAlchemy's asyncio extension cannot run on *backend*."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture 'session', but runs on {backend}.",
            cause="SQLAlchemy's AsyncSession works with asyncio only",
            fixes=[
                "override the fixture anyio_backend and return 'asyncio' from it",
                "use the fixture 'sync_session' instead",
            ],
        )

    @classmethod
    def ambiguous(cls, test: str, name: str, modules: Sequence[str]) -> Self:
        """Say which plugins define the same fixture."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture {name!r}, which {len(modules)} plugins define.",
            cause="it is defined by " + " and by ".join(modules),
            fixes=[
                "switch one of the plugins off: pytest -p no:<name>",
                f"decide in conftest.py: define a fixture {name!r} there, which beats all plugins",
            ],
        )

    @classmethod
    def unknown_dependency(cls, names: Sequence[str], near: Sequence[str], known: int) -> Self:
        """Say which keys no route of the application depends on."""
        plural = len(names) > 1
        cause = f"no route of the application depends on {'them' if plural else 'it'} ({known} dependencies were found)"
        if near:
            cause += "; did you mean " + _alternatives(near) + "?"
        return cls.compose(
            f"chatdify-db: {', '.join(names)} {'are' if plural else 'is'} not overridden.",
            cause=cause,
            fixes=[
                "give the very function that the routes name in Depends(...): another function of the same name, or a "
                "wrapped one, is not the same key",
                "include the router in the application before calling override_dependencies",
            ],
        )

    @classmethod
    def no_dependency(cls, key: str) -> Self:
        """Say that a key of the overrides cannot be a dependency."""
        return cls.compose(
            f"chatdify-db: {key} is not overridden.",
            cause="a dependency is the function or class that the routes name in Depends(...), or its alias",
            fixes=["write it as override_dependencies(app, {function: value}), the function itself and not its name"],
        )

    @classmethod
    def no_celery(cls, value: str, app: str) -> Self:
        """Say that there is no Celery application to run tasks of; *app* is where one may be."""
        return cls.compose(
            "chatdify-db: the fixture 'celery_eager' cannot run tasks.",
            cause=f"it was given {value}, which is no Celery application",
            fixes=[f"give it the application: celery_eager({app})"],
        )

    @classmethod
    def no_broker(cls, cause: str) -> Self:
        """Say that a task was sent to a broker that does not answer."""
        return cls.compose(
            "chatdify-db: a task was sent to a broker, and none has answered.",
            cause=cause,
            fixes=[
                "have tasks run in the test itself, in its transaction: ask for the fixture celery_eager and call it "
                "with the Celery application that sends them, before they are sent: celery_eager(celery_app)",
                "start the broker, and a worker for the test: a recipe is in the documentation, under Celery",
            ],
        )

    @classmethod
    def uncallable_override(cls, name: str, value: str) -> Self:
        """Say that FastAPI would take the parameters ``*args, **kwargs`` for those of a query."""
        return cls.compose(
            f"chatdify-db: {name} is not overridden.",
            cause=f"what is given for it, {value}, takes *args or **kwargs, which FastAPI reads from the query of the "
            "request: every request would be refused with 422",
            fixes=[
                "to give this very object to the routes, as one does with a mock: lambda: value",
                "to have it called, give a function that names its parameters",
            ],
        )

    @classmethod
    def unknown_task(cls, name: str, near: Sequence[str]) -> Self:
        """Say that no task of this name is registered."""
        cause = "no task of this name is registered in the application"
        if near:
            cause += "; did you mean " + _alternatives(near) + "?"
        return cls.compose(
            f"chatdify-db: the task {name!r} cannot run eagerly.",
            cause=cause,
            fixes=[
                "import the module that defines the task before it is sent",
                "correct the name given to send_task",
            ],
        )

    @classmethod
    def no_hooks(cls) -> Self:
        """Say that the project does not use the layer whose hooks would be captured."""
        return cls.compose(
            "chatdify-db: the fixture 'capture_on_commit' has nothing to capture.",
            cause="app.db cannot be imported: this project's package 'app' is another one",
            fixes=[
                "let app.db be found, if the project uses it: its own directory 'app' has no __init__.py",
                "do without the fixture: hooks of other libraries run when the test's code commits",
            ],
        )

    @classmethod
    def no_uvicorn(cls) -> Self:
        """Say that the fixture needs a package."""
        return cls.compose(
            "chatdify-db: the fixture 'live_server' cannot serve the application.",
            cause="uvicorn is not installed",
            fixes=["install it: pip install uvicorn", "call the application itself: httpx.ASGITransport(app)"],
        )

    @classmethod
    def server_not_started(cls) -> Self:
        """Say that the application ended before it served a request."""
        return cls.compose(
            "chatdify-db: the application did not start in the fixture 'live_server'.",
            cause="its lifespan raised an error; uvicorn's log, in the captured output below, has the traceback",
            fixes=["correct its lifespan", "serve it without its lifespan: live_server(app, lifespan='off')"],
        )


class LateFixture(FixtureError):
    """A fixture's rows would have to live longer than rows that are there already."""

    @classmethod
    def after_rows(cls, fixture: str, scope: str, owner: str) -> Self:
        """Say whose rows are in the way."""
        return cls.compose(
            f"chatdify-db: the {scope}-scoped fixture {fixture!r} is set up too late to store rows.",
            cause=f"{owner} has written already. What is undone first must be written last, and the rows of "
            f"{fixture!r} would have to stay when those are undone",
            fixes=_EARLIER.copy(),
        )

    @classmethod
    def in_own_database(cls, fixture: str, scope: str, test: str) -> Self:
        """Say that the rows would be lost with the test's own database."""
        return cls.compose(
            f"chatdify-db: the {scope}-scoped fixture {fixture!r} is set up too late to store rows.",
            cause=f'{test} has a database of its own (isolation="database"), which is dropped when it ends, and the '
            f"rows of {fixture!r} with it",
            fixes=[*_EARLIER, "give it the scope 'function'"],
        )


_EARLIER = [
    "name it in the test's signature, so that it is set up before the narrower fixtures",
    "name it by @pytest.mark.usefixtures on the test, class or module",
    "make it autouse",
]


def _alternatives(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " or " + values[-1]

"""Mistakes in when and where the application connects, and ways out of the tests' transaction."""

from __future__ import annotations

from typing import Self

from pytest_chatdify_db.errors import ChatdifyDBError


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
                "if this is a test or its fixture: import app.db, or the module of your tables, at the top of the "
                "test's module, ask for a fixture such as sync_session, or mark the test with @pytest.mark.chatdify_db",
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
                "if this run is inside another one or after it, in the same process: give it a process of its own, by "
                "pytester.runpytest_subprocess() or python -m pytest",
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

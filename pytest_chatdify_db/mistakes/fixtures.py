"""Mistakes in the use of fixtures: where they are asked for, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pytest_chatdify_db.errors import ChatdifyDBError, alternatives

_EARLIER = [
    "name it in the test's signature, so that it is set up before the narrower fixtures",
    "name it by @pytest.mark.usefixtures on the test, class or module",
    "make it autouse",
]


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
    def two_async_plugins(cls, test: str) -> Self:
        """Say that one plugin runs the test and another one its fixtures."""
        return cls.compose(
            f"chatdify-db: {test} asks for the fixture 'session', but two plugins run it in two event loops.",
            cause="pytest-asyncio takes the test, because of asyncio_mode = auto or its marker, and anyio takes the "
            "async fixtures, because of the marker anyio or the fixture anyio_backend; a session has one loop",
            fixes=[
                "leave the test to anyio: set asyncio_mode = strict in the ini file",
                "leave the test to pytest-asyncio: remove the marker anyio and the fixture anyio_backend",
                "use the fixture 'sync_session' instead",
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
            cause += "; did you mean " + alternatives(near) + "?"
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
                "if it was: a shared task that a thread sends, such as that of a 'def' endpoint or of TestClient, goes "
                "by Celery's fallback application, in production too: say celery_app.set_default() where it is made",
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
            cause += "; did you mean " + alternatives(near) + "?"
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

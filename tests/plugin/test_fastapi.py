"""The fixture ``override_dependencies`` on real applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_APP = """
from fastapi import APIRouter, Depends, FastAPI, WebSocket

def user(): return "nobody"
def by_router(): return "router"
def by_sub_dependency(): return "sub"
def of_websocket(): return "websocket"
def of_mounted(): return "mounted"
def inner(value: str = Depends(by_sub_dependency)): return value

router = APIRouter(dependencies=[Depends(by_router)])

@router.get("/user")
async def get_user(value: str = Depends(user), other: str = Depends(inner)): return [value, other]

@router.websocket("/ws")
async def socket(ws: WebSocket, value: str = Depends(of_websocket)): ...

nested = APIRouter()
nested.include_router(router, prefix="/nested")
mounted = FastAPI()

@mounted.get("/value")
async def get_mounted(value: str = Depends(of_mounted)): return value

app = FastAPI()
app.include_router(nested)
app.mount("/mounted", mounted)
"""


def test_overrides(project: Project) -> None:
    """Values and callables replace dependencies wherever a route has them, layer upon layer."""
    project.write("application.py", _APP)
    project.write(
        "test_it.py",
        """
        import httpx, pytest
        import application
        from application import app

        async def get(path):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return (await client.get(path)).json()

        @pytest.mark.asyncio
        async def test_it(override_dependencies):
            assert override_dependencies(app, {application.user: "me", application.by_sub_dependency: lambda: 7}) is app
            assert await get("/nested/user") == ["me", 7]
            override_dependencies(app, {application.user: None})
            assert await get("/nested/user") == [None, 7]

        @pytest.mark.asyncio
        async def test_mounted(override_dependencies):
            override_dependencies(app, {application.of_mounted: "mine"})
            assert await get("/mounted/value") == "mine"

        def test_every_kind(override_dependencies):
            override_dependencies(app, {application.by_router: 1, application.of_websocket: 2})

        @pytest.mark.asyncio
        async def test_restored():
            assert await get("/nested/user") == ["nobody", "sub"]
            assert await get("/mounted/value") == "mounted"
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_restored_whatever_happened(project: Project) -> None:
    """The project's own overrides are there again after code under test has cleared or replaced the mapping."""
    project.write("application.py", _APP)
    project.write(
        "test_it.py",
        """
        import pytest
        from application import app, user

        OWN = lambda: "own"
        app.dependency_overrides[user] = OWN
        MAPPING = app.dependency_overrides

        def test_cleared(override_dependencies):
            override_dependencies(app, {user: "me"})
            app.dependency_overrides.clear()

        def test_replaced(override_dependencies):
            assert app.dependency_overrides == {user: OWN}
            override_dependencies(app, {user: "me"})
            app.dependency_overrides = {}
            override_dependencies(app, {user: "you"})

        def test_restored():
            assert app.dependency_overrides is MAPPING and MAPPING == {user: OWN}
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_unknown_key(project: Project) -> None:
    """A key that no route depends on is an error that names what looks like it."""
    project.write("application.py", _APP)
    project.write(
        "test_it.py",
        """
        from application import app

        def users(): ...

        def test_it(override_dependencies):
            override_dependencies(app, {users: 1})
        """,
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * chatdify-db: test_it.users is not overridden.",
            "E * Cause: no route of the application depends on it (6 dependencies were found); "
            "did you mean application.user?",
        ]
    )


_KINDS = """
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket

log = []

def user(): return "nobody"
User = Annotated[str, Depends(user)]

def permission(who: User): return f"{who} may"
Permission = Annotated[str, Security(permission, scopes=["all"])]

class Page:
    def __init__(self, size: int = 10): self.size = size

class Limit:
    def __call__(self): return 1
limit = Limit()

def connection():
    log.append("opened")
    yield "real"
    log.append("closed")

async def guard(): log.append("guarded")

router = APIRouter(prefix="/inner")

@router.get("/all")
async def get_all(
    may: Permission, page: Annotated[Page, Depends()], most: Annotated[int, Depends(limit)],
    link: Annotated[str, Depends(connection)],
): return [may, page.size, most, link]

@router.websocket("/ws")
async def socket(ws: WebSocket, who: User):
    await ws.accept()
    await ws.send_text(who)
    await ws.close()

innermost = FastAPI()
innermost.include_router(router)
middle = FastAPI()
middle.mount("/innermost", innermost)
app = FastAPI(dependencies=[Depends(guard)])
app.include_router(router)
app.mount("/middle", middle)
"""


def test_every_kind_of_dependency(project: Project) -> None:
    """Aliases, what they depend on, classes, objects, generators, guards of a whole application, and WebSockets."""
    project.write("application.py", _KINDS)
    project.write(
        "test_it.py",
        """
        from typing import Annotated
        import httpx, pytest
        import application
        from application import app, log

        @pytest.fixture(autouse=True)
        def forget():
            log.clear()

        @pytest.fixture(params=["/inner", "/middle/innermost/inner"])
        def prefix(request):
            return request.param

        async def get(path):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return (await client.get(path)).json()

        async def first_text(path):
            sent = []
            async def receive(): return {"type": "websocket.connect"}
            async def send(message): sent.append(message)
            scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "scheme": "ws"}
            await app(scope, receive, send)
            return [message["text"] for message in sent if "text" in message]

        pytestmark = pytest.mark.asyncio

        async def test_without(prefix):
            assert await get(f"{prefix}/all") == ["nobody may", 10, 1, "real"]
            assert log == ["guarded"] * (prefix == "/inner") + ["opened", "closed"]

        async def test_what_an_alias_depends_on(prefix, override_dependencies):
            override_dependencies(app, {application.user: "ann"})
            assert (await get(f"{prefix}/all"))[0] == "ann may"
            assert await first_text(f"{prefix}/ws") == ["ann"]

        async def test_an_alias_as_key(prefix, override_dependencies):
            override_dependencies(app, {application.User: "bob"})
            assert (await get(f"{prefix}/all"))[0] == "bob may"
            assert await first_text(f"{prefix}/ws") == ["bob"]

        async def test_a_class(prefix, override_dependencies):
            override_dependencies(app, {application.Page: lambda: application.Page(3)})
            assert (await get(f"{prefix}/all?size=5"))[1] == 3

        async def test_the_alias_of_a_class(prefix, override_dependencies):
            from fastapi import Depends
            override_dependencies(app, {Annotated[application.Page, Depends()]: application.Page(4)})
            assert (await get(f"{prefix}/all"))[1] == 4

        async def test_an_object(prefix, override_dependencies):
            override_dependencies(app, {application.limit: 2})
            assert (await get(f"{prefix}/all"))[2] == 2

        async def test_a_generator_by_a_value(prefix, override_dependencies):
            override_dependencies(app, {application.connection: "mine"})
            assert (await get(f"{prefix}/all"))[3] == "mine"
            assert "opened" not in log

        async def test_a_generator_by_a_generator(prefix, override_dependencies):
            async def connection(size: int = 0):
                log.append("begun")
                yield f"mine {size}"
                log.append("ended")

            override_dependencies(app, {application.connection: connection})
            assert (await get(f"{prefix}/all?size=7"))[3] == "mine 7"
            assert log[-2:] == ["begun", "ended"]

        async def test_a_guard(override_dependencies):
            override_dependencies(app, {application.guard: None})
            await get("/inner/all")
            assert "guarded" not in log
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=17)


def test_an_alias_without_a_dependency(project: Project) -> None:
    """An alias that names no dependency of a route is a key like another one that nothing depends on."""
    project.write("application.py", _KINDS)
    project.write(
        "test_it.py",
        """
        from typing import Annotated
        from fastapi import Depends
        from application import app

        def users(): ...

        def test_another(override_dependencies):
            override_dependencies(app, {Annotated[str, Depends(users)]: 1})

        def test_none(override_dependencies):
            override_dependencies(app, {Annotated[str, "a note"]: 1})
        """,
    )

    result = project.run()

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["E * chatdify-db: test_it.users is not overridden.", "E * did you mean application.user?"]
    )


def test_a_mock_as_value(project: Project) -> None:
    """A mock can be called, so FastAPI would call it, and ask every request for its *args: that is said at once."""
    project.write("application.py", _KINDS)
    project.write(
        "test_it.py",
        """
        from unittest.mock import Mock
        from application import app, user

        def test_refused(override_dependencies):
            override_dependencies(app, {user: Mock()})

        def test_given(override_dependencies):
            override_dependencies(app, {user: lambda: Mock()})
            assert user in app.dependency_overrides

        def test_nothing_is_left():
            assert app.dependency_overrides == {}
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * chatdify-db: application.user is not overridden.",
            "E * Cause: what is given for it, unittest.mock.Mock, *",
        ]
    )

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

"""The fixture ``live_server``, with clients that know nothing of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_WEB = """
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from sqlalchemy import select

from app.db import get_session
from models import Item

app = FastAPI()


@app.get("/items")
async def items(session=Depends(get_session)):
    return list(await session.scalars(select(Item.name)))


@app.post("/items/{name}")
async def add(name: str, session=Depends(get_session)):
    session.add(Item(name=name))


@asynccontextmanager
async def failing(app):
    raise LookupError("no configuration")
    yield


broken = FastAPI(lifespan=failing)
"""


def test_requests_of_another_process(project: Project) -> None:
    """A client in another process sees the test's rows, the test sees its, and the next test neither."""
    project.write_models()
    project.write("web.py", _WEB)
    project.write(
        "test_it.py",
        """
        import subprocess, sys, urllib.error
        from urllib.request import Request, urlopen

        import pytest
        from store import add, names
        from web import app, broken

        def test_both_directions(live_server):
            url = live_server(app).url
            add("of the test")
            code = f"from urllib.request import *; print(urlopen('{url}/items').read().decode())"
            seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            urlopen(Request(f"{url}/items/client", method="POST")).close()

            assert seen.stdout.strip() == '["of the test"]'
            assert names() == ["client", "of the test"]

        def test_ended(live_server):
            server = live_server(app)
            with urlopen(f"{server.url}/items") as answer:
                assert answer.read() == b"[]"
            assert server.url == f"http://127.0.0.1:{server.port}"

        def test_application_that_does_not_start(live_server):
            live_server(broken)
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the application did not start in the fixture 'live_server'.",
            "*LookupError: no configuration*",
        ]
    )

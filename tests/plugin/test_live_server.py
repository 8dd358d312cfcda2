"""The fixture ``live_server``, with clients that know nothing of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.needs import program

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


_PAGE = """
from html import escape
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select

from app.db import get_session
from models import Item

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
async def page(session=Depends(get_session)):
    rows = "".join(f"<li>{escape(name)}</li>" for name in await session.scalars(select(Item.name).order_by(Item.id)))
    return f"<ul>{rows}</ul><form method='post'><input name='name'><button>Add</button></form>"


@app.post("/")
async def add(request: Request, session=Depends(get_session)):
    form = parse_qs((await request.body()).decode())
    session.add(Item(name=form["name"][0]))
    return RedirectResponse("/", status_code=303)
"""

_BROWSER = """
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = ChromeOptions()
    options.binary_location = {chromium!r}
    for name in (
        "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
        "disable-component-update disable-sync"
    ).split():
        options.add_argument(f"--{{name}}")
    options.add_argument(f"--user-data-dir={{tmp_path_factory.mktemp('profile')}}")
    with Chrome(options, ChromeService({chromedriver!r})) as browser:
        yield browser
"""


@pytest.mark.needs("chromium", "chromedriver")
def test_a_browser(project: Project) -> None:
    """A browser shows the test's rows, and the test sees what its user sends; the next test has neither."""
    project.write_models()
    project.write("web.py", _PAGE)
    project.write("conftest.py", _BROWSER.format(chromium=program("chromium"), chromedriver=program("chromedriver")))
    project.write(
        "test_it.py",
        """
        import pytest
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.wait import WebDriverWait
        from store import add, names
        from web import app

        def shown(browser):
            return [each.text for each in browser.find_elements(By.TAG_NAME, "li")]

        @pytest.mark.parametrize("time", ["first", "second"])
        def test_it(browser, live_server, time):
            add("of the test")

            browser.get(live_server(app).url)
            assert shown(browser) == ["of the test"]

            browser.find_element(By.NAME, "name").send_keys(f"of the {time} user")
            browser.find_element(By.TAG_NAME, "button").click()
            waiting = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])
            waiting.until(lambda _: shown(browser) == ["of the test", f"of the {time} user"])
            assert names() == [f"of the {time} user", "of the test"]
        """,
    )

    result = project.run("-p", "no:cacheprovider")

    result.assert_outcomes(passed=2)

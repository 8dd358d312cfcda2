"""Broken tests of a project, each diagnosed from its report alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

_MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base


class Shop(Base):
    __tablename__ = "shop"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(unique=True)


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]
    shop: Mapped[Shop] = relationship()
    shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"), init=False)
"""

_WEB = """
from celery import Celery
from fastapi import Depends, FastAPI
from sqlalchemy import select

from app.db import SyncSessionLocal, get_session, get_sync_session
from models import Shop

app = FastAPI()
celery = Celery("project", broker="redis://127.0.0.1:1/0")
kept = []


@app.get("/shops")
async def shops(session=Depends(get_session)):
    return [shop.name for shop in await session.scalars(select(Shop).where(Shop.id > 1))]


@app.post("/shops/{name}")
async def add(name: str, session=Depends(get_session)):
    session.add(Shop(name))
    await session.flush()
    rename.delay(name, "sent too early")


@celery.task(name="rename")
def rename(name, new_name):
    with get_sync_session() as session:
        session.scalars(select(Shop).where(Shop.name == name)).one().name = new_name


def forget(name):
    with SyncSessionLocal() as session:
        session.add(Shop(name))
        session.flush()


def keep(name):
    kept.append(SyncSessionLocal())
    kept[-1].add(Shop(name))
    kept[-1].flush()
"""

_CONFTEST = """
import httpx
import pytest_asyncio

from web import app


@pytest_asyncio.fixture
async def client():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://project") as client:
        yield client
"""


@pytest.fixture
def shop(project: Project) -> Project:
    """A project with a web application and a task."""
    project.write("models.py", _MODELS)
    project.write("web.py", _WEB)
    project.write("conftest.py", _CONFTEST)
    return project


_FIVE = """
import pytest
from sqlalchemy import select
from models import Item, Shop
from web import celery, forget, keep, rename

@pytest.mark.asyncio
async def test_wrong_count(client, sync_session):
    sync_session.add_all([Shop("first"), Shop("second")])
    sync_session.commit()
    assert len((await client.get("/shops")).json()) == 2

@pytest.mark.asyncio
async def test_constraint_in_task(session, celery_eager):
    celery_eager(celery)
    session.add_all([Shop("first"), Shop("second")])
    await session.commit()
    rename.delay("first", "second")

def test_forgotten_commit(sync_session):
    forget("first")
    assert sync_session.scalars(select(Shop.name)).all() == ["first"]

@pytest.mark.chatdify_db(n_plus_one="error")
def test_lazy_loads(sync_session):
    sync_session.add_all(Item(str(number), Shop(str(number))) for number in range(3))
    sync_session.commit()
    sync_session.expunge_all()
    for item in sync_session.scalars(select(Item)):
        assert item.shop.name

def test_left_open():
    keep("first")
"""

#: For each broken test what its report has to say: who, where, which statement, what to do.
_DIAGNOSES = {
    "test_wrong_count": [
        "*test_it.py:10 in test_wrong_count  2 rows, * ms, committed",
        # The request has asked for more than the test thought.
        "  request GET /shops (asyncpg)  web.py:16 in shops  1 row, * ms",
        "    SELECT shop.id, shop.name FROM shop WHERE shop.id > $1::INTEGER  [[]id_1=1[]]",
    ],
    "test_constraint_in_task": [
        ">       rename.delay(*",
        "E       sqlalchemy.exc.IntegrityError: (psycopg2.errors.UniqueViolation) duplicate key value *",
        "web.py:28: IntegrityError",
        "! task rename[[]????????[]] (psycopg2)  web.py:28 in rename  * ms",
        "    UPDATE shop SET name=%(name)s WHERE shop.id = *  [[]name='second', shop_id=*[]]",
        "    -> UniqueViolation: duplicate key value violates unique constraint *",
    ],
    "test_forgotten_commit": [
        "  test (psycopg2)  web.py:35 in forget  1 row, * ms, rolled back at web.py:33 in forget",
        "    INSERT INTO shop (name) VALUES *  [[]name='first'[]]",
        "hint: what test wrote at web.py:35 in forget was rolled back, and no statement had failed: *",
        "      (session.commit(), or get_sync_session(), which commits at its end)",
    ],
    "test_lazy_loads": [
        "chatdify-db: in test_it.py::test_lazy_loads the relationship Item.shop was loaded lazily 3 times *",
        "sync_session at test_it.py:30 in test_lazy_loads: SELECT shop.id*FROM shop *",
        "  - load it with the query: select(...).options(selectinload(Item.shop))",
        "  sync_session (psycopg2)  test_it.py:30 in test_lazy_loads  3 times, *",
    ],
    "test_left_open": [
        "chatdify-db: test_it.py::test_left_open has left 1 connection(s) in a transaction.",
        "    begun by test at web.py:41 in keep: INSERT INTO shop *",
        "  - close each session and connection where it was opened: in a with block, or by Depends(get_session)",
        "  test (psycopg2)  web.py:41 in keep  1 row, * ms, not committed",
    ],
}


@pytest.mark.parametrize("test", _DIAGNOSES)
def test_five_broken_tests(shop: Project, test: str) -> None:
    """Each can be diagnosed from its report alone, which is at most a screen of 40 lines."""
    shop.write("test_it.py", _FIVE)

    result = shop.run("-k", test, "--chatdify-db-leaks=error", "--junit-xml=report.xml")

    result.stdout.fnmatch_lines(_DIAGNOSES[test])
    lines = result.outlines
    begin = next(number for number, line in enumerate(lines) if line.startswith("___"))
    assert lines.index(next(line for line in lines[begin:] if line.startswith("==="))) - begin <= 40
    assert 'property name="chatdify_db_sql"' in (shop.pytester.path / "report.xml").read_text()


def test_traceback(shop: Project) -> None:
    """An error of SQLAlchemy's shows the project's lines; ``--full-trace`` shows the libraries' too."""
    shop.write(
        "test_it.py",
        """
        from sqlalchemy import text

        def test_it(sync_session):
            sync_session.execute(text("SELECT * FROM nothing"))
        """,
    )

    short, full = shop.run(), shop.run("--full-trace")

    short.stdout.no_fnmatch_line("*site-packages*")
    short.stdout.fnmatch_lines(
        [
            ">       sync_session.execute(text(*",
            "test_it.py:5: ProgrammingError",
            '    -> UndefinedTable: relation "nothing" does not exist',
            'hint: nothing has created the table "nothing". Import the module of its model before *',
        ]
    )
    full.stdout.fnmatch_lines(["*sqlalchemy*base.py:*"])


def test_traceback_of_a_chain(shop: Project) -> None:
    """An error of the project's that was raised from one of SQLAlchemy's keeps its own frames."""
    shop.write(
        "test_it.py",
        """
        from sqlalchemy import text
        from sqlalchemy.exc import ProgrammingError

        def test_it(sync_session):
            try:
                sync_session.execute(text("SELECT * FROM nothing"))
            except ProgrammingError as error:
                raise LookupError("of the project") from error
        """,
    )

    result = shop.run()

    result.stdout.no_fnmatch_line("*site-packages*")
    result.stdout.fnmatch_lines(
        ["test_it.py:7: ProgrammingError", "The above exception was *", "E*LookupError: of the project"]
    )


def test_failure_in_a_task(shop: Project) -> None:
    """Of what runs tasks and requests, no line of the plugin's is in a traceback."""
    shop.write(
        "test_it.py",
        """
        import pytest
        from web import app, celery

        @celery.task(name="fail")
        def fail():
            raise LookupError("in the task")

        @app.get("/fail")
        async def failing():
            fail.delay()

        @pytest.mark.asyncio
        async def test_it(client, celery_eager):
            celery_eager(celery)
            await client.get("/fail")
        """,
    )

    result = shop.run()

    result.stdout.fnmatch_lines(["E       LookupError: in the task"])
    result.stdout.no_fnmatch_line("*pytest_chatdify_db*.py:*")


@pytest.mark.parametrize("isolation", ["transaction", "database"])
def test_other_connections(shop: Project, isolation: str) -> None:
    """Child processes and bare drivers are told of too, each connection by its name, without values."""
    shop.write(
        "test_it.py",
        """
        import asyncio, os, subprocess, sys
        import asyncpg, psycopg2
        from web import forget

        CHILD = "import psycopg2; psycopg2.connect('application_name=child').cursor().execute({!r})"

        def test_before():
            connection = psycopg2.connect(os.environ["DATABASE_URL"])
            connection.cursor().execute("SELECT 'of another test'")
            connection.close()

        def test_it(sync_session):
            forget("known")
            for statement in ("INSERT INTO shop (name) VALUES ('it''s secret')", "SELECT * FROM nothing"):
                subprocess.run([sys.executable, "-c", CHILD.format(statement)], stderr=subprocess.DEVNULL)

            async def use_asyncpg():
                connection = await asyncpg.connect(os.environ["DATABASE_URL"])
                await connection.fetch("SELECT $1::text, 7", "a value")
                await connection.close()

            asyncio.run(use_asyncpg())
            raise AssertionError
        """,
    )

    result = shop.run(f"--chatdify-db-isolation={isolation}", "--tb=short", "--chatdify-db-leaks=off")

    result.assert_outcomes(failed=1, passed=1)
    failed = "! connection * (child): SELECT [*] FROM nothing  failed" if isolation == "transaction" else "* nothing*"
    result.stdout.fnmatch_lines(
        [
            "by child processes, or drivers without an engine of SQLAlchemy:",
            "  connection * (child): INSERT INTO shop (name) VALUES ('...')",
            failed,
            "  connection *: SELECT $1::text, 7",
        ]
    )
    section = result.stdout.str().partition("by child processes")[2]
    assert "known" not in section
    assert "another test" not in section


def test_border_of_a_request(shop: Project) -> None:
    """What a request executes by itself is not told to be of the test's line that has sent the request."""
    shop.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.asyncio
        async def test_it(client):
            await client.post("/shops/one")
            raise AssertionError
        """,
    )
    shop.write("web.py", _WEB.replace('    rename.delay(name, "sent too early")\n', ""))

    result = shop.run()

    result.stdout.fnmatch_lines(["  request POST /shops/one (asyncpg)  web.py:22 in add  1 row, * ms, committed"])


def test_task_sent_before_the_commit(shop: Project) -> None:
    """A dirty read is a warning that names the request and the task; the test's own sessions may read anything."""
    shop.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import select
        from models import Shop
        from web import celery

        @pytest.mark.asyncio
        async def test_early(client, celery_eager):
            celery_eager(celery)
            await client.post("/shops/new")

        @pytest.mark.asyncio
        async def test_own(client, session, sync_session):
            session.add(Shop("uncommitted"))
            await session.flush()
            sync_session.scalars(select(Shop)).all()
            await client.get("/shops")
        """,
    )

    result = shop.run("-W", "default")

    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*DirtyReadWarning: chatdify-db: in test_it.py::test_early one connection of the application has read *",
            "  Read by task rename[[]????????[]] at web.py:29 in rename: SELECT shop.id, *",
            "  Written, not committed by request POST /shops/new at web.py:22 in add: INSERT INTO shop *",
        ]
    )


def test_a_dirty_read_as_an_error(shop: Project) -> None:
    """The task that reads too early fails; the test's own sessions write and read as ever, and are not in its way."""
    shop.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import select, text
        from models import Shop
        from app.db import get_sync_session
        from web import celery

        @pytest.mark.asyncio
        async def test_early(client, celery_eager):
            celery_eager(celery)
            await client.post("/shops/new")

        @pytest.mark.asyncio
        async def test_own(client, session, sync_session):
            session.add(Shop("uncommitted"))
            await session.flush()
            sync_session.scalars(select(Shop)).all()
            await client.get("/shops")

        def test_a_connection_is_the_tests_only_in_its_transaction(sync_session):
            sync_session.execute(text("SELECT 1"))
            sync_session.commit()
            with get_sync_session() as first, get_sync_session() as second:
                first.add(Shop("uncommitted"))
                first.flush()
                second.scalars(select(Shop)).all()
        """,
    )

    result = shop.run("--chatdify-db-dirty-reads=error", "-W", "default")

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            '*dirty read of table "shop": another connection has written to it and not committed*',
            "FAILED test_it.py::test_early*",
            "FAILED test_it.py::test_a_connection_is_the_tests_only_in_its_transaction*",
        ]
    )


def test_which_reports_show_sql(shop: Project) -> None:
    """``sql=all`` shows it for tests that pass, ``sql=off`` for none; parameters with a secret's name are masked."""
    shop.write(
        "test_it.py",
        """
        from sqlalchemy import text

        def test_passes(sync_session):
            sync_session.execute(text("SELECT :token, :other"), {"token": "confidential", "other": 1})

        def test_fails(sync_session):
            sync_session.execute(text("SELECT 'visible'"))
            raise AssertionError
        """,
    )

    everything = shop.run("--chatdify-db-sql=all", "-rA").stdout
    nothing = shop.run("--chatdify-db-sql=off", "-rA").stdout

    everything.fnmatch_lines_random(
        ["    SELECT %(token)s, %(other)s  [[]token=[*][*][*], other=1[]]", "    SELECT 'visible'"]
    )
    assert "confidential" not in everything.str()
    nothing.no_fnmatch_line("*chatdify-db: SQL*")


def test_budget_of_each_request(shop: Project) -> None:
    """With ``each`` every request, or every task, has the budget for itself."""
    shop.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import text

        @pytest.mark.asyncio
        async def test_within(client, session, assert_num_queries, assert_max_num_queries):
            with assert_num_queries(1, each="request"), assert_max_num_queries(1, each="request GET /shops"):
                await session.execute(text("SELECT 1"))
                await client.get("/shops")
                await client.get("/shops")

        @pytest.mark.asyncio
        async def test_beyond(client, assert_num_queries):
            with assert_num_queries(2, each="request"):
                await client.get("/shops")

        def test_nobody(assert_num_queries):
            with assert_num_queries(1, each="task"):
                pass
        """,
    )

    result = shop.run()

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "1 statement was executed by request GET /shops in the block at test_it.py:*, exactly 2 expected:",
            "0 statements were executed by no task in the block at test_it.py:*, exactly 1 expected.",
        ]
    )


def test_written_between_tests(shop: Project) -> None:
    """A write while no test runs is told by the next test, with the one before it and the line."""
    shop.write(
        "late.py",
        """
        import pytest
        from web import forget

        @pytest.hookimpl
        def pytest_runtest_logfinish(nodeid):
            forget(nodeid)
        """,
    )
    shop.write("test_it.py", "def test_one(): ...\ndef test_two(): ...")

    result = shop.run("-p", "late", "-W", "default")

    result.stdout.fnmatch_lines(
        [
            "*StrayWriteWarning: chatdify-db: after test_it.py::test_one had ended, something was written while *",
            "    - test at web.py:35 in forget: INSERT INTO shop *",
            "*StrayWriteWarning: chatdify-db: after test_it.py::test_two had ended, *",
        ]
    )


@pytest.mark.parametrize("file", ["test_it.py", "tests/conftest.py"])
def test_use_at_import(shop: Project, file: str) -> None:
    """A module that connects when it is imported is told which line does, and what to do instead."""
    shop.write(file, "from web import forget\nforget('x')\ndef test_it(): ...")

    result = shop.run(*([] if file == "test_it.py" else ["tests"]))

    lines = [
        "*chatdify-db: the database was used while pytest was importing modules; it runs while tests do.",
        f"*Cause: {file}:2 connects when its module is imported: *refused*",
        "*  - let every test start with rows: *chatdify_db_seed",
    ]
    (result.stdout if file == "test_it.py" else result.stderr).fnmatch_lines(lines)

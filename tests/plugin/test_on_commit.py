"""The fixture ``capture_on_commit``, with every kind of session and every form of a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_SHOP = """
from celery import Celery
from fastapi import Depends, FastAPI
from app.db import apply_async_on_commit, delay_on_commit, get_session, get_sync_session, on_commit
from models import Item

celery_app = Celery("shop", broker="redis://127.0.0.1:1/0")
ran = []

@celery_app.task(name="tell")
def tell(name, *, loudly=False):
    with get_sync_session() as session:
        session.add(Item(name=f"told {name}"))
        on_commit(session, ran.append, f"task {name}")

async def later(name):
    ran.append(f"awaited {name}")

app = FastAPI()

@app.post("/items/{name}")
async def create(name: str, session=Depends(get_session)):
    session.add(Item(name=name))
    on_commit(session, ran.append, name)
    on_commit(session, later, name)
    delay_on_commit(session, tell, name)
    apply_async_on_commit(session, tell, [f"{name} again"], {"loudly": True}, countdown=3)
"""


def test_capture(project: Project) -> None:
    """Calls are listed when their transaction is committed; they are held back, or run where they would run anyway."""
    project.write_models()
    project.write("shop.py", _SHOP)
    project.write(
        "test_it.py",
        """
        import httpx, pytest
        from app.db import get_sync_session, on_commit
        from shop import app, celery_app, later, ran, tell
        from store import names

        @pytest.fixture(autouse=True)
        def forget():
            ran.clear()

        async def post(path):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                assert (await client.post(path)).status_code == 200

        @pytest.mark.asyncio
        @pytest.mark.parametrize("isolation", [
            pytest.param("transaction"),
            pytest.param("database", marks=pytest.mark.chatdify_db(isolation="database")),
        ])
        async def test_a_request(capture_on_commit, celery_eager, isolation):
            celery_eager(celery_app)
            with capture_on_commit() as calls:
                await post("/items/one")

            assert [(call.function, call.args, call.kwargs, call.options) for call in calls] == [
                (ran.append, ("one",), {}, None),
                (later, ("one",), {}, None),
                (tell, ("one",), {}, {}),
                (tell, ("one again",), {"loudly": True}, {"countdown": 3}),
            ]
            assert ran == [] and names() == ["one"]
            calls[0]()
            await calls[1]()
            calls[2]()
            calls[3]()
            assert ran == ["one", "awaited one", "task one", "task one again"]
            assert names() == ["one", "told one", "told one again"]

        @pytest.mark.asyncio
        async def test_executed(capture_on_commit, celery_eager):
            celery_eager(celery_app)
            with capture_on_commit(execute=True) as calls:
                await post("/items/one")

            assert ran == ["one", "awaited one", "task one", "task one again"]
            # What the tasks' own transactions waited for is listed too, when it came due.
            assert [call.function for call in calls] == [ran.append, later, tell, tell, ran.append, ran.append]

        @pytest.mark.asyncio
        async def test_async_session(capture_on_commit, session):
            with capture_on_commit() as calls:
                on_commit(session, later, "one")
                assert calls == []
                await session.commit()
            assert [call.args for call in calls] == [("one",)] and ran == []

        def test_sync_session_and_savepoints(capture_on_commit, sync_session):
            with capture_on_commit() as calls:
                on_commit(sync_session, ran.append, "kept")
                with sync_session.begin_nested() as savepoint:
                    on_commit(sync_session, ran.append, "lost")
                    savepoint.rollback()
                with sync_session.begin_nested():
                    on_commit(sync_session, ran.append, key="value")
                sync_session.commit()
                on_commit(sync_session, ran.append, "rolled back")
                sync_session.rollback()
            assert [(call.args, call.kwargs) for call in calls] == [(("kept",), {}), ((), {"key": "value"})]

        def test_one_inside_another(capture_on_commit):
            with capture_on_commit() as outer, capture_on_commit(execute=True) as inner:
                with get_sync_session() as session:
                    on_commit(session, ran.append, "held by the outer one")
            assert outer == inner and len(outer) == 1 and ran == []

        def test_an_error_reaches_the_commit(capture_on_commit, sync_session):
            with capture_on_commit(execute=True) as calls:
                on_commit(sync_session, int, "x")
                with pytest.raises(ValueError):
                    sync_session.commit()
            assert [call.function for call in calls] == [int]

        def test_after_the_block(capture_on_commit, sync_session):
            with pytest.raises(KeyError), capture_on_commit():
                raise KeyError
            on_commit(sync_session, ran.append, "as ever")
            sync_session.commit()
            assert ran == ["as ever"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=8)


def test_without_the_layer(project: Project) -> None:
    """In a project whose package ``app`` is another one, the fixture says that there are no hooks to capture."""
    project.write("app/__init__.py", "")
    project.write(
        "models.py", "from sqlalchemy import *; metadata = MetaData(); Table('a', metadata, Column('b', Integer))"
    )
    project.write(
        "test_it.py",
        """
        def test_it(capture_on_commit):
            with capture_on_commit():
                ...
        """,
    )

    result = project.run("-o", "pythonpath=.", "--chatdify-db-metadata=models:metadata")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*chatdify-db: the fixture 'capture_on_commit' has nothing to capture."])

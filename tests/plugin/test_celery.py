"""The fixture ``celery_eager`` on real applications, whose broker does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project

_TASKS = """
import asyncio
from celery import Celery, shared_task
from sqlalchemy import func, select
from app.db import get_async_session, get_sync_session
from models import Item

app = Celery("project", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")

@app.task(name="rename")
def rename(name, new_name):
    with get_sync_session() as session:
        session.scalars(select(Item).where(Item.name == name)).one().name = new_name

@app.task(name="count")
def count():
    async def counting():
        async with get_async_session() as session:
            return await session.scalar(select(func.count()).select_from(Item))

    return asyncio.run(counting())

@shared_task(name="fail")
def fail():
    raise ZeroDivisionError

@app.task(bind=True, name="flaky", max_retries=2)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=60)
    return self.request.retries
"""


def test_tasks_run_at_once(project: Project) -> None:
    """Tasks see the test's rows through their own sessions, also when sent from a running loop and by name."""
    project.write_models()
    project.write("tasks.py", _TASKS)
    project.write(
        "test_it.py",
        """
        import pytest
        from celery.exceptions import Retry
        from kombu.exceptions import EncodeError
        import tasks
        from store import add, names

        def test_sync(celery_eager):
            assert celery_eager(tasks.app) is tasks.app
            add("one")
            tasks.rename.delay("one", "two")
            assert names() == ["two"]
            assert tasks.app.send_task("count").get() == 1
            assert tasks.app.signature("count").apply_async().get() == 1

        @pytest.mark.asyncio
        async def test_in_a_running_loop(celery_eager, session):
            celery_eager(tasks.app)
            add("one")
            assert tasks.count.delay().get() == 1
            assert tasks.count.apply_async().get() == 1
            with pytest.raises(ZeroDivisionError):
                tasks.fail.delay()

        def test_arguments_are_serialised(celery_eager):
            celery_eager(tasks.app)
            with pytest.raises(EncodeError):
                tasks.rename.delay(object(), "x")

        def test_propagates(celery_eager):
            celery_eager(tasks.app)
            with pytest.raises(Retry):
                tasks.flaky.delay()
            celery_eager(tasks.app, propagates=False)
            assert tasks.flaky.delay().get() == 2
            assert tasks.fail.delay().state == "FAILURE"

        def test_results(celery_eager):
            celery_eager(tasks.app, store_results=True)
            assert tasks.app.AsyncResult(tasks.count.delay().id).get(timeout=5) == 0

        def test_restored():
            assert not tasks.app.conf.task_always_eager
            assert "send_task" not in vars(tasks.app)
            assert not tasks.count.store_eager_result
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_unknown_task(project: Project) -> None:
    """A task that is sent by a name nobody registered is an error that names what looks like it."""
    project.write_models()
    project.write("tasks.py", _TASKS)
    project.write(
        "test_it.py",
        """
        import tasks

        def test_it(celery_eager):
            celery_eager(tasks.app).send_task("renamed")
        """,
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * chatdify-db: the task 'renamed' cannot run eagerly.",
            "E * Cause: no task of this name is registered in the application; did you mean rename?",
        ]
    )


def test_webhook_and_task(project: Project) -> None:
    """The core flow: an asyncio endpoint commits a row and sends a task, which changes it through the other driver."""
    project.write_models()
    project.write("tasks.py", _TASKS)
    project.write(
        "application.py",
        """
        from fastapi import Depends, FastAPI
        from sqlalchemy.ext.asyncio import AsyncSession
        from app.db import get_session
        from models import Item
        import tasks

        app = FastAPI()

        @app.post("/items/{name}")
        async def create(name: str, session: AsyncSession = Depends(get_session)):
            session.add(Item(name=name))
            await session.commit()
            tasks.rename.delay(name, "by task")
            return tasks.count.delay().get()
        """,
    )
    project.write(
        "test_it.py",
        """
        import httpx, pytest
        from application import app
        from store import names
        from tasks import app as celery_app

        @pytest.mark.asyncio
        @pytest.mark.parametrize("isolation", [
            pytest.param("transaction"),
            pytest.param("database", marks=pytest.mark.chatdify_db(isolation="database")),
        ])
        async def test_it(celery_eager, isolation, chatdify_db):
            assert chatdify_db.isolation == isolation
            celery_eager(celery_app)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                response = await client.post("/items/one")
            assert response.json() == 1
            assert names() == ["by task"]

        def test_clean():
            assert names() == []
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=3)

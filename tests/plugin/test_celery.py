"""The fixture ``celery_eager`` on real applications, whose broker does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


_CANVAS = """
import asyncio
from celery import Celery, chain, chord, group, shared_task
from sqlalchemy import func, select
from app.db import delay_on_commit, get_async_session, get_sync_session
from models import Item

app = Celery("project", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")

@app.task(name="store")
def store(name):
    with get_sync_session() as session:
        session.add(Item(name=name))
    return name

@app.task(name="count")
def count(*_):
    with get_sync_session() as session:
        return session.scalar(select(func.count()).select_from(Item))

@app.task(name="count_async")
def count_async(*_):
    async def counting():
        async with get_async_session() as session:
            return await session.scalar(select(func.count()).select_from(Item))

    return asyncio.run(counting())

@app.task(name="fail")
def fail(*_):
    raise ZeroDivisionError("no")

@app.task(name="note_failure")
def note_failure(request, error, traceback):
    store(f"failed: {error}")

@app.task(name="flaky", autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=3, bind=True)
def flaky(self, until):
    store(f"attempt {self.request.retries}")
    if self.request.retries < until:
        raise ConnectionError("away")
    return self.request.retries

@app.task(name="parent", bind=True)
def parent(self, name):
    store.delay(name)
    with get_sync_session() as session:
        session.add(Item(name=f"{name} of the parent"))
        delay_on_commit(session, store, f"{name} after the commit")
    return app.send_task("count_async").get(disable_sync_subtasks=False)

@shared_task(name="shared")
def shared():
    return "shared"

@app.task(name="chained")
def chained():
    chain(store.s("one"), count.s()).delay()
    chord([store.s("two"), store.s("three")])(count.s())
    return count.delay().id

@app.task(name="impatient")
def impatient():
    return count.delay().get()

@app.task(name="replaced", bind=True)
def replaced(self):
    return self.replace(chain(store.s("by the replacement"), count.s()))
"""


@pytest.mark.parametrize("loop", ["no loop", "a running loop"])
def test_canvas(project: Project, loop: str) -> None:
    """Links, chains, groups, chords and their nestings run as on a worker, each task on what the others committed."""
    project.write_models()
    project.write("tasks.py", _CANVAS)
    tests = """
        import pytest
        from celery import chain, chord, group
        from tasks import (
            app, chained, count, count_async, fail, flaky, impatient, note_failure, parent, replaced, shared, store,
        )
        from store import names

        pytestmark = MARK

        @pytest.fixture(autouse=True)
        def eager(celery_eager):
            return celery_eager(app)

        DEF test_link():
            store.apply_async(["one"], link=[store.si("two"), count.s()])
            assert names() == ["one", "two"]

        DEF test_link_error(celery_eager):
            celery_eager(app, propagates=False)
            assert fail.apply_async(link_error=note_failure.s()).state == "FAILURE"
            assert names() == ["failed: no"]

        DEF test_autoretry(celery_eager):
            celery_eager(app, propagates=False)
            assert flaky.delay(2).get() == 2
            assert names() == ["attempt 0", "attempt 1", "attempt 2"]

        DEF test_autoretry_to_the_end(celery_eager):
            celery_eager(app, propagates=False)
            result = flaky.delay(9)
            assert result.state == "FAILURE" and isinstance(result.result, ConnectionError)
            assert names() == ["attempt 0", "attempt 1", "attempt 2", "attempt 3"]

        DEF test_chain():
            assert chain(store.s("one"), count.s(), count_async.s()).delay().get() == 1
            assert (store.s("two") | count_async.s())().get() == 2

        DEF test_group():
            assert group(store.s("one"), store.s("two")).delay().get() == ["one", "two"]
            assert names() == ["one", "two"]

        DEF test_chord():
            assert chord([store.s("one"), store.s("two")])(count.s()).get() == 2
            assert chord(group(store.s(str(n)) for n in range(3)), count_async.s()).delay().get() == 5

        DEF test_nested():
            inner = group(store.si("one"), chain(store.si("two"), store.si("three")))
            assert chain(store.si("zero"), chord(inner, count.s())).delay().get() == 4

        DEF test_an_error_in_a_chain():
            with pytest.raises(ZeroDivisionError):
                chain(store.s("one"), fail.s(), store.si("never")).delay()
            assert names() == ["one"]

        DEF test_tasks_inside_tasks():
            assert parent.delay("one").get() == 3
            assert names() == ["one", "one after the commit", "one of the parent"]

        DEF test_map_and_chunks():
            assert store.map(["one", "two"]).delay().get() == ["one", "two"]
            store.chunks([("three",), ("four",)], 1).delay()
            assert names() == ["four", "one", "three", "two"]

        DEF test_a_signature_by_name():
            app.signature("store", ("one",)).delay()
            assert (app.signature("store", ("two",)) | app.signature("count")).delay().get() == 2

        DEF test_a_shared_task():
            assert shared.delay().get() == "shared"

        DEF test_a_task_that_replaces_itself():
            assert replaced.delay().get() == 1

        DEF test_canvas_inside_a_task():
            chained.delay()
            assert names() == ["one", "three", "two"]

        DEF test_waiting_inside_a_task():
            with pytest.raises(RuntimeError, match="Never call result.get"):
                impatient.delay()
            with pytest.raises(RuntimeError, match="Never call result.get"):
                chain(impatient.si(), store.si("never")).delay()
            assert count.delay().get() == 0

        DEF test_results(celery_eager):
            celery_eager(app, store_results=True)
            result = chain(store.s("one"), count.s()).delay()
            assert app.AsyncResult(result.id).get(timeout=5) == 1
            assert app.AsyncResult(store.delay("two").id).state == "SUCCESS"

        DEF test_a_failed_result(celery_eager):
            celery_eager(app, propagates=False, store_results=True)
            found = app.AsyncResult(fail.delay().id)
            assert found.state == "FAILURE" and "no" in str(found.result)
        """
    if loop == "no loop":
        tests = tests.replace("DEF", "def").replace("MARK", "[]")
    else:
        tests = tests.replace("DEF", "async def").replace("MARK", "pytest.mark.asyncio")
    project.write("test_it.py", tests)

    result = project.run("-p", "no:cacheprovider")

    result.assert_outcomes(passed=18)


def test_tasks_of_requests(project: Project) -> None:
    """Tasks sent by an asyncio endpoint, by a sync endpoint in its thread, and by background tasks of both kinds."""
    project.write_models()
    project.write("tasks.py", _CANVAS)
    project.write(
        "application.py",
        """
        from fastapi import BackgroundTasks, Depends, FastAPI
        from app.db import delay_on_commit, get_session, get_sync_session
        from tasks import count_async, parent, store

        app = FastAPI()

        @app.post("/async/{name}")
        async def by_async(name: str, session=Depends(get_session)):
            delay_on_commit(session, store, name)

        @app.post("/sync/{name}")
        def by_sync(name: str):
            store.delay(name)
            return count_async.delay().get()

        @app.post("/background/{name}")
        async def by_background(name: str, tasks: BackgroundTasks):
            async def later():
                parent.delay(f"{name} async")

            tasks.add_task(store.delay, f"{name} sync")
            tasks.add_task(later)
        """,
    )
    project.write(
        "test_it.py",
        """
        import httpx, pytest
        from application import app
        from store import names
        from tasks import app as celery_app

        @pytest.fixture(params=["asyncio", "thread"])
        def post(request, live_server):
            if request.param == "thread":
                url = live_server(app).url
                async def post(path):
                    async with httpx.AsyncClient(base_url=url) as client:
                        return await client.post(path)
            else:
                async def post(path):
                    transport = httpx.ASGITransport(app)
                    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                        return await client.post(path)
            return post

        @pytest.mark.asyncio
        async def test_it(celery_eager, post):
            celery_eager(celery_app)
            assert (await post("/async/one")).status_code == 200
            assert (await post("/sync/two")).json() == 2
            assert (await post("/background/three")).status_code == 200
            await post("/sync/four")
            assert names() == [
                "four", "one", "three async", "three async after the commit", "three async of the parent",
                "three sync", "two",
            ]
        """,
    )

    result = project.run("-p", "no:cacheprovider")

    result.assert_outcomes(passed=2)


def test_tasks_in_several_threads(project: Project) -> None:
    """Tasks that begin and end in turns on two threads leave results as they should be: there to be waited for."""
    project.write_models()
    project.write("tasks.py", _CANVAS)
    project.write(
        "test_it.py",
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from tasks import app, count

        def test_it(celery_eager):
            celery_eager(app)
            second_runs, first_has_ended = threading.Event(), threading.Event()

            @app.task
            def first():
                return second_runs.wait(60)

            @app.task
            def second():
                second_runs.set()
                return first_has_ended.wait(60)

            with ThreadPoolExecutor(2) as threads:
                one = threads.submit(first.delay)
                one.add_done_callback(lambda _: first_has_ended.set())
                two = threads.submit(second.delay)
            assert one.result().get() and two.result().get()
            assert count.delay().get() == 0
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_shared_tasks_in_threads(project: Project) -> None:
    """A shared task is the application's in a chain, after an async commit and in a task, whatever thread sends it."""
    project.write_models()
    project.write("tasks.py", _CANVAS)
    project.write(
        "test_it.py",
        """
        import asyncio
        from threading import Thread
        import pytest
        from celery import chain, current_app, shared_task
        from app.db import delay_on_commit, get_async_session
        from tasks import app

        ran = []

        @shared_task
        def inner():
            ran.append(current_app._get_current_object())

        @shared_task
        def outer():
            inner.delay()

        @app.task
        def first():
            inner.delay()

        @shared_task
        def looping():
            asyncio.run(asyncio.sleep(0))
            ran.append(current_app._get_current_object())

        @pytest.fixture(autouse=True)
        def eager(celery_eager):
            ran.clear()
            celery_eager(app)

        def in_thread(function):
            left = []
            def work():
                function()
                left.append(current_app._get_current_object())
            thread = Thread(target=work)
            thread.start()
            thread.join()
            assert left and left[0] is not app

        async def commit():
            async with get_async_session() as session:
                delay_on_commit(session, outer)

        async def chained():
            chain(first.si(), looping.si()).delay()

        def test_inside_a_task():
            in_thread(first.delay)
            assert ran == [app]

        def test_in_a_chain():
            in_thread(chain(first.si(), inner.si()).delay)
            assert ran == [app, app]

        def test_in_a_chain_of_a_loop():
            in_thread(lambda: asyncio.run(chained()))
            assert ran == [app, app]

        def test_after_a_commit():
            asyncio.run(commit())
            assert ran == [app]
        """,
    )

    result = project.run("-p", "no:cacheprovider")

    result.assert_outcomes(passed=4)


def test_no_broker(project: Project) -> None:
    """Behind kombu's own error stands how to run the task in the test; without a database too."""
    project.write(
        "test_it.py",
        """
        from celery import Celery

        app = Celery("shop", broker="redis://127.0.0.1:1/0")
        app.conf.task_publish_retry = False
        app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}

        @app.task
        def ship(): ...

        def test_it():
            ship.delay()
        """,
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *kombu.exceptions.OperationalError: *",
            "chatdify-db: a task was sent to a broker, and none has answered.",
            "Cause: *refused*",
            "*celery_eager(celery_app)",
            "  - if it was: a shared task that a thread sends, *: say celery_app.set_default() where it is made",
        ]
    )

"""Forked workers: Celery prefork, gunicorn --preload, os.fork. No child ever touches its parent's connections."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .servers import Workshop, accepts, free_port, run_python

pytestmark = pytest.mark.chatdify_db(isolation="database")

# How many tasks the Celery worker gets; `tox -e endurance` sends two thousand.
TASKS = int(os.environ.get("APP_TEST_TASKS", "200"))

_FORK = """
import asyncio, os, sys
from sqlalchemy import text
from app.db import async_engine, get_async_session, get_sync_session, sync_engine

ECHO = text("SELECT CAST(:n AS integer), pg_sleep(0.001)")

def sync_query(n):
    with get_sync_session() as session:
        return session.execute(ECHO, {"n": n}).first()[0]

async def async_query(n):
    async with get_async_session() as session:
        return (await session.execute(ECHO, {"n": n})).first()[0]

async def used_before_the_fork():
    assert await async_query(1) == 1
    children = [fork(number) for number in range(1, 4)]
    for n in range(50):
        assert await async_query(n) == n
        assert sync_query(n) == n
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

def fork(number):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # The child of a running loop runs its own in a thread's place: what Celery and gunicorn children do.
        asyncio._set_running_loop(None)
        for n in range(50):
            assert sync_query(number * 1000 + n) == number * 1000 + n
        assert asyncio.run(async_child(number)) == 50
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)

async def async_child(number):
    for n in range(50):
        assert await async_query(number * 1000 + n) == number * 1000 + n
    return 50

assert sync_query(0) == 0
print(asyncio.run(used_before_the_fork()))
sync_engine.dispose()
"""


def test_fork() -> None:
    """Parent and three children query both engines at once, after the parent has used them: every answer is right."""
    assert run_python(_FORK) == "[0, 0, 0]"


def test_the_childs_exit_leaves_the_parents_connections_alone() -> None:
    """A child that collects its garbage and exits in the ordinary way does not close its parent's sockets."""
    code = """
import asyncio, gc, os, sys
from sqlalchemy import text
from app.db import async_engine, get_async_session, get_sync_session, sync_engine

async def main():
    async with get_async_session() as session, async_engine.connect() as held:
        before = await held.scalar(text("SELECT pg_backend_pid()"))
        await session.execute(text("SELECT 1"))
        await session.commit()
        with get_sync_session() as sync_session:
            mine = sync_session.scalar(text("SELECT pg_backend_pid()"))
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(None)
                gc.collect()
                with get_sync_session() as other:
                    assert other.scalar(text("SELECT pg_backend_pid()")) != mine
                sync_engine.dispose()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert sync_session.scalar(text("SELECT pg_backend_pid()")) == mine
        assert await held.scalar(text("SELECT pg_backend_pid()")) == before
        await session.execute(text("SELECT 1"))

asyncio.run(main())
sync_engine.dispose()
print("ok")
"""
    assert run_python(code) == "ok"


_TASKS = """
import asyncio, os
from celery import Celery
from sqlalchemy import text
from app.db import get_async_session, get_sync_session

celery_app = Celery("tasks")
celery_app.conf.update(broker_url=os.environ["REDIS"], result_backend=os.environ["REDIS"],
                       broker_connection_retry_on_startup=True)
ECHO = text("SELECT CAST(:n AS integer), pg_backend_pid(), pg_sleep(0.001)")

def sync_work(n):
    with get_sync_session() as session:
        return [os.getpid(), *session.execute(ECHO, {"n": n}).first()[:2]]

async def async_work(n):
    async with get_async_session() as session:
        return [os.getpid(), *(await session.execute(ECHO, {"n": n})).first()[:2]]

# Both engines are used in the parent, before the pool is forked, in a loop that lives on.
sync_work(0)
loop = asyncio.new_event_loop()
loop.run_until_complete(async_work(0))

@celery_app.task
def in_sync(n):
    return sync_work(n)

@celery_app.task
def in_async(n):
    return asyncio.run(async_work(n))
"""

_SEND = """
import json
from tasks import in_async, in_sync
sent = [(in_async if n % 3 == 0 else in_sync).delay(n) for n in range(TASKS)]
print(json.dumps([result.get(timeout=300) for result in sent]))
sent.clear()
"""


@pytest.mark.needs("redis-server")
def test_celery_prefork(workshop: Workshop, redis: str, repository: Path) -> None:
    """Hundreds of tasks, sync and async, on four forked children of a worker that used its engine before: all right."""
    (workshop.directory / "tasks.py").write_text(_TASKS, encoding="utf-8")
    environment = {"PYTHONPATH": f"{repository}:{workshop.directory}", "REDIS": redis}
    listening = workshop.directory / "ready"
    # The signal is the worker's own word that its pool is forked and its consumer is on.
    (workshop.directory / "worker.py").write_text(
        "from celery.signals import worker_ready\n"
        "from pathlib import Path\n"
        "from tasks import celery_app\n"
        "@worker_ready.connect\n"
        f"def ready(**_): Path({str(listening)!r}).touch()\n",
        encoding="utf-8",
    )
    workshop.start(
        [sys.executable, "-m", "celery", "-A", "worker", "worker", "-c", "4", "-P", "prefork", "-l", "warning",
         "--without-mingle", "--without-gossip"],
        ready=listening.exists,
        environment=environment,
    )  # fmt: skip

    answers = json.loads(
        run_python(
            f"import warnings; warnings.simplefilter('ignore')\nTASKS = {TASKS}\n{_SEND}",
            environment,
            cwd=workshop.directory,
            timeout=400,
        )
    )

    assert [answer for _, answer, _ in answers] == list(range(TASKS))
    workers = Counter(pid for pid, _, _ in answers)
    assert len(workers) > 1
    # No socket is shared: each session of the server answers one process only.
    assert len({(pid, backend) for pid, _, backend in answers}) == len({backend for _, _, backend in answers})
    print(f"{TASKS} tasks, every answer right, by {len(workers)} forked children: {sorted(workers.values())}")  # noqa: T201 - the figures of a long run


_SITE = """
import asyncio, os
from sqlalchemy import text
from app.db import get_async_session, get_sync_session

ECHO = text("SELECT CAST(:n AS integer), pg_backend_pid(), pg_sleep(0.01)")

def sync_work(n):
    with get_sync_session() as session:
        return session.execute(ECHO, {"n": n}).first()

async def async_work(n):
    async with get_async_session() as session:
        return (await session.execute(ECHO, {"n": n})).first()

# Both engines are used before the fork, in a loop that lives on.
loop = asyncio.new_event_loop()
assert sync_work(7)[0] == loop.run_until_complete(async_work(7))[0] == 7

def application(environ, start_response):
    n = int(environ["PATH_INFO"].strip("/"))
    answer, backend, _ = asyncio.run(async_work(n)) if n % 3 == 0 else sync_work(n)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer} {backend}".encode()]
"""


def test_gunicorn_preload(workshop: Workshop, repository: Path) -> None:
    """Workers that gunicorn forked from a preloaded application, whose engine was used, answer every request right."""
    (workshop.directory / "site_app.py").write_text(_SITE, encoding="utf-8")
    port = free_port()
    workshop.start(
        [sys.executable, "-m", "gunicorn", "--preload", "-w", "3", "-b", f"127.0.0.1:{port}",
         "site_app:application"],
        ready=lambda: accepts(port),
        environment={"PYTHONPATH": f"{repository}:{workshop.directory}"},
    )  # fmt: skip

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http, ThreadPoolExecutor(8) as threads:
        answers = [
            text.split() for text in threads.map(lambda n: http.get(f"/{n}").raise_for_status().text, range(100))
        ]

    assert [int(answer) for _, answer, _ in answers] == list(range(100))
    assert len({pid for pid, _, _ in answers}) > 1
    assert len({(pid, backend) for pid, _, backend in answers}) == len({backend for _, _, backend in answers})

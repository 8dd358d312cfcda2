"""Which databases are kept, and what is said about them; nothing is connected to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_chatdify_db.databases import copies, keeping, templates
from pytest_chatdify_db.databases.copies import Copied
from pytest_chatdify_db.databases.keeping import MOST, Keeping
from pytest_chatdify_db.errors import CopyFailed, TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.errors import ConnectError
from pytest_chatdify_db.servers.base import Server
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.supervisor import KEPT

SERVER = Server(Address("127.0.0.1", 5433, "me", "hidden"), "container", "", "18.4", True, True, 0.0)
SANDBOX = Address("127.0.0.1", 5434)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that has nothing to wait for."""
    run = Run.create(tmp_path)
    yield run
    (run.directory / KEPT).unlink(missing_ok=True)
    run.close()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a copy of the sandbox lacks: to be filled. Copies are made of nothing."""
    found: list[str] = []
    monkeypatch.setattr(templates, "clone", lambda server, template, name: server.address.with_database(name))
    monkeypatch.setattr(copies, "copy_rows", lambda source, target: Copied((), tuple(found)))
    return found


@pytest.mark.usefixtures("missing")
def test_bound(run: Run) -> None:
    """The first ones are kept, each once; the file that keeps the server going is made with the first."""
    kept = Keeping(SERVER, "template", SANDBOX, run, "gw1")
    assert kept.summary == ""
    assert not (run.directory / KEPT).exists()

    first = kept.keep("test_0", None)

    assert f"dbname=chatdify_db_failed_{run.id}_gw1_1 " in first
    assert f"passfile={run.directory}/server.pgpass" in first
    assert "hidden" not in first
    assert (run.directory / KEPT).exists()
    assert kept.keep("test_0", None) == ""
    assert kept.summary.startswith("chatdify-db: 1 database of failed tests kept (gw1); removed an hour after the run")
    assert all(kept.keep(f"test_{number}", None) for number in range(1, MOST))
    assert kept.keep("one too many", None) == f"not kept: {MOST} are kept already"


def test_what_is_missing(run: Run, missing: list[str]) -> None:
    """Of many changes of the schema the first are named."""
    missing += [f"table public.t{number}" for number in range(7)]

    text = Keeping(SERVER, "template", SANDBOX, run, "main").keep("test", None)

    assert text.endswith("public.t3, table public.t4, and 2 more")
    assert "public.t5" not in text


@pytest.mark.usefixtures("missing")
def test_server_that_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's report says so; at the end of a test with a database of its own it is an error of that test."""
    own = Address("127.0.0.1", 5433, database="own")
    kept = Keeping(replace(SERVER, is_managed=False), "template", SANDBOX, run, "main")
    kept.keep("test_own", own)

    def connect(address: Address) -> None:
        raise ConnectError(address, "refused")

    monkeypatch.setattr(keeping, "connect", connect)

    assert "refused" in kept.keep("test", None)
    with pytest.raises(TemplateFailed, match="refused"):
        kept.takes(own)
    assert not kept.takes(own)
    assert kept.summary.endswith("dropped by the first run that begins more than a day later")


@pytest.mark.usefixtures("missing")
def test_copy_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made for it goes again, and the report has the reason."""
    dropped: list[str] = []

    def copy_rows(_: Address, target: Address) -> None:
        raise CopyFailed.refused(str(target), "no space left on device")

    monkeypatch.setattr(copies, "copy_rows", copy_rows)
    monkeypatch.setattr(templates, "drop", lambda _, name: dropped.append(name))
    kept = Keeping(SERVER, "template", SANDBOX, run, "main")

    assert "Cause: no space left on device" in kept.keep("test", None)
    assert dropped == [f"chatdify_db_failed_{run.id}_main_1"]
    assert kept.summary == ""

"""Sync tests: write, commit, read. A row that another test left behind fails them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import User
from size import NUMBERS
from stopwatch import Stopwatch


def write_and_read(session: Session, name: str) -> list[str]:
    """Commit a user; return the names of the last two."""
    session.add(User(name=name))
    session.commit()
    return list(session.scalars(select(User.name).order_by(User.id.desc()).limit(2)))


@pytest.mark.parametrize("number", NUMBERS)
def test_sync(sync_session: Session, number: int) -> None:
    """What is committed is there, and nothing else."""
    assert write_and_read(sync_session, "Ada") == ["Ada"]


def test_warm(sync_session: Session, record_property: Callable[[str, object], None]) -> None:
    """The same body on a session that is open and warm."""
    stopwatch = Stopwatch()
    for number in stopwatch.rounds():
        assert write_and_read(sync_session, f"Ada {number}")[0] == f"Ada {number}"
    record_property("body", stopwatch.median)

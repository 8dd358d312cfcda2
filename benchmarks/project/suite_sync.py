"""Sync tests: write, commit, read. A row that another test left behind fails them."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import User
from size import NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_sync(sync_session: Session, number: int) -> None:
    """What is committed is there, and nothing else."""
    sync_session.add(User(name="Ada"))
    sync_session.commit()

    assert sync_session.scalars(select(User.name)).all() == ["Ada"]

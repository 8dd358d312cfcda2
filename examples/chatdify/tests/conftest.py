"""What the tests share. The database is not here: production code connects by itself, into the test's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy.orm import Session

from app.main import app
from app.models import Account
from app.tasks import celery_app
from pytest_chatdify_db import CeleryEager


@pytest.fixture
def account(sync_session: Session) -> Account:
    """An account, committed: every connection of the test sees it, and no other test does."""
    account = Account("Ann's shop", api_key="secret")
    sync_session.add(account)
    sync_session.commit()
    return account


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application as it is: nothing is replaced in it."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chatdify") as client:
        yield client


@pytest.fixture
def eager(celery_eager: CeleryEager) -> None:
    """Let tasks run where they are sent."""
    celery_eager(celery_app)

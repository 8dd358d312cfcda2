"""Dependency overrides: for who is logged in, and the like. The database needs none."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import current_account
from app.db import get_session
from app.main import app
from app.models import Account
from pytest_chatdify_db import OverrideDependencies

HELLO = {"external_id": "wa-1", "person": "Cleo", "text": "Hello"}


async def test_an_unknown_key_is_refused(client: httpx.AsyncClient) -> None:
    """Without an override the real log-in asks the database."""
    response = await client.post("/webhook", json=HELLO, headers={"X-API-Key": "wrong"})

    assert response.status_code == 401


@pytest.mark.usefixtures("eager")
async def test_somebody_is_logged_in(
    client: httpx.AsyncClient, account: Account, override_dependencies: OverrideDependencies
) -> None:
    """With the dependency overridden by a value, no key is needed."""
    override_dependencies(app, {current_account: account})

    response = await client.post("/webhook", json=HELLO)

    assert response.status_code == 202


async def test_the_request_shares_the_session_of_the_test(
    client: httpx.AsyncClient, session: AsyncSession, override_dependencies: OverrideDependencies
) -> None:
    """With ``get_session`` overridden the request uses the very session of the test: nothing need be committed."""
    session.add(Account("Ann", api_key="secret"))
    await session.flush()
    override_dependencies(app, {get_session: lambda: session})

    response = await client.get("/conversations/1", headers={"X-API-Key": "secret"})

    assert response.status_code == 404


def test_overrides_end_with_their_test() -> None:
    """The application is as it was."""
    assert app.dependency_overrides == {}

"""Code from before app.db: it commits and rolls back by hand, and is isolated all the same."""

from __future__ import annotations

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Account


async def test_an_account_is_created(client: httpx.AsyncClient, sync_session: Session) -> None:
    """The endpoint commits by itself."""
    response = await client.post("/accounts", params={"name": "Ann", "api_key": "secret"})

    assert response.status_code == 201
    assert sync_session.get_one(Account, response.json()["id"]).name == "Ann"


async def test_a_key_that_is_taken(client: httpx.AsyncClient, account: Account, sync_session: Session) -> None:
    """The endpoint's rollback undoes its own work, and leaves that of others alone."""
    response = await client.post("/accounts", params={"name": "Bob", "api_key": account.api_key})

    assert response.status_code == 409
    assert sync_session.scalars(select(Account.name)).all() == ["Ann's shop"]

"""Who is calling: the account that the request's API key belongs to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, status
from fastapi.security import APIKeyHeader
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_session
from app.models import Account

__all__ = ["CurrentAccount", "current_account"]

_api_key = APIKeyHeader(name="X-API-Key")


async def current_account(
    api_key: Annotated[str, Depends(_api_key)], session: Annotated[AsyncSession, Depends(get_session)]
) -> Account:
    """Return the account whose key the request carries.

    Raises:
        HTTPException: 401, the key is nobody's.
    """
    account = await session.scalar(select(Account).where(Account.api_key == api_key))
    if account is None:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "This API key is not known.")
    return account


CurrentAccount = Annotated[Account, Depends(current_account)]

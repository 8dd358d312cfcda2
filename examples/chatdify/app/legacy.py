"""Endpoints from before app.db: they import the deprecated names, commit and roll back by hand, and still work."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, status
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import get_db
from app.models import Account

__all__ = ["router"]

router = APIRouter(prefix="/accounts")


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_account(name: str, api_key: str, db: Annotated[AsyncSession, Depends(get_db)]) -> dict[str, int]:
    """Create an account."""
    account = Account(name, api_key)
    db.add(account)
    try:
        await db.commit()
    except IntegrityError:
        await db.rollback()
        raise HTTPException(status.HTTP_409_CONFLICT, "This API key is taken.") from None
    await db.refresh(account)
    return {"id": account.id}

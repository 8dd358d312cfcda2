"""The web application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, status
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app import log
from app.db import (
    DatabaseUnavailable,
    check_database,
    delay_on_commit,
    dispose_engines,
    get_session,
    is_retryable,
    sqlstate,
)
from app.models import Order
from app.tasks import confirm

__all__ = ["app"]

DbSession = Annotated[AsyncSession, Depends(get_session)]
UNIQUE_VIOLATION = "23505"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Configure the logs; close the database connections when the server stops."""
    log.configure()
    yield
    await dispose_engines()


app = FastAPI(title="Shop", lifespan=lifespan)


@app.post("/orders/{reference}", status_code=status.HTTP_201_CREATED)
async def order(reference: str, session: DbSession) -> dict[str, int]:
    """Store an order; a worker confirms it as soon as it is committed."""
    session.add(new := Order(reference))
    await session.flush()
    delay_on_commit(session, confirm, new.id)
    return {"id": new.id}


@app.get("/orders/{order_id}")
async def read(order_id: int, session: DbSession) -> dict[str, object]:
    """Return an order."""
    found = await session.get(Order, order_id)
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return {"reference": found.reference, "is_confirmed": found.is_confirmed}


@app.get("/health")
async def health() -> JSONResponse:
    """Tell the load balancer whether this process reaches its database."""
    try:
        seconds = await check_database(timeout=3.0)
    except DatabaseUnavailable:
        return JSONResponse({"database": "unavailable"}, status.HTTP_503_SERVICE_UNAVAILABLE)
    return JSONResponse({"database": "ok", "seconds": seconds})


@app.exception_handler(DBAPIError)
async def database_error(request: Request, error: DBAPIError) -> JSONResponse:
    """Answer what the client may repeat with 503, and what exists already with 409."""
    if is_retryable(error):
        return JSONResponse({"detail": "Try again."}, status.HTTP_503_SERVICE_UNAVAILABLE, {"Retry-After": "1"})
    if sqlstate(error) == UNIQUE_VIOLATION:
        return JSONResponse({"detail": "This exists already."}, status.HTTP_409_CONFLICT)
    raise error

"""Async tests on Django's ORM: write, read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shop.models import User
from size import NUMBERS
from stopwatch import Stopwatch


async def write_and_read(name: str) -> list[str]:
    """Create a user; return the names of the last two."""
    await User.objects.acreate(name=name)
    return [name async for name in User.objects.order_by("-id").values_list("name", flat=True)[:2]]


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", NUMBERS)
async def test_async(number: int) -> None:
    """What is committed is there, and nothing else."""
    assert await write_and_read("Ada") == ["Ada"]


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
async def test_warm(record_property: Callable[[str, object], None]) -> None:
    """The same body on a connection that is open and warm."""
    stopwatch = Stopwatch()
    for number in stopwatch.rounds():
        assert (await write_and_read(f"Ada {number}"))[0] == f"Ada {number}"
    record_property("body", stopwatch.median)

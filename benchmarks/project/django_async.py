"""Async tests on Django's ORM: write, read."""

from __future__ import annotations

import pytest

from shop.models import User
from size import NUMBERS


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", NUMBERS)
async def test_async(number: int) -> None:
    """What is committed is there, and nothing else."""
    await User.objects.acreate(name="Ada")

    assert [name async for name in User.objects.values_list("name", flat=True)] == ["Ada"]

"""Sync tests on Django's ORM: write in a block that commits, read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from shop.models import User
from size import NUMBERS
from stopwatch import Stopwatch


def write_and_read(name: str) -> list[str]:
    """Commit a user; return the names of the last two."""
    with transaction.atomic():
        User.objects.create(name=name)
    return list(User.objects.order_by("-id").values_list("name", flat=True)[:2])


@pytest.mark.django_db
@pytest.mark.parametrize("number", NUMBERS)
def test_sync(number: int) -> None:
    """What is committed is there, and nothing else."""
    assert write_and_read("Ada") == ["Ada"]


@pytest.mark.django_db
def test_warm(record_property: Callable[[str, object], None]) -> None:
    """The same body on a connection that is open and warm."""
    stopwatch = Stopwatch()
    for number in stopwatch.rounds():
        assert write_and_read(f"Ada {number}")[0] == f"Ada {number}"
    record_property("body", stopwatch.median)

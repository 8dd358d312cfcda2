"""Sync tests on Django's ORM: write in a block that commits, read."""

from __future__ import annotations

import pytest
from django.db import transaction

from shop.models import User
from size import NUMBERS


@pytest.mark.django_db
@pytest.mark.parametrize("number", NUMBERS)
def test_sync(number: int) -> None:
    """What is committed is there, and nothing else."""
    with transaction.atomic():
        User.objects.create(name="Ada")

    assert list(User.objects.values_list("name", flat=True)) == ["Ada"]

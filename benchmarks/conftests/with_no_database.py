"""No database: fixtures that hand out a stand-in. What pytest, pytest-asyncio and the imports cost by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import models


class _Result:
    def __init__(self, user: models.User) -> None:
        self._user = user

    def __iter__(self) -> Iterator[str]:
        return iter([self._user.name])

    def all(self) -> list[str]:
        return list(self)

    def one(self) -> models.User:
        return self._user


class _Nothing:
    """A session that has what was added to it."""

    def __init__(self, users: list[models.User]) -> None:
        self._users = users

    def add(self, user: models.User) -> None:
        self._users.append(user)

    def commit(self) -> None: ...

    def scalars(self, _statement: Any) -> _Result:
        return _Result(self._users[-1])


class _AsyncNothing(_Nothing):
    async def commit(self) -> None:  # type: ignore[override]  # a stand-in for both sorts of sessions
        ...

    async def scalars(self, statement: Any) -> _Result:  # type: ignore[override]  # a stand-in for both sorts of sessions
        return super().scalars(statement)


@pytest.fixture
def users() -> list[models.User]:
    return []


@pytest.fixture
def sync_session(users: list[models.User]) -> _Nothing:
    return _Nothing(users)


@pytest.fixture
def session(users: list[models.User]) -> _AsyncNothing:
    return _AsyncNothing(users)

"""A server for all tests of this folder, and for each test that asks a sandbox on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stage import Stage, StagedSandbox, started


@pytest.fixture(scope="session")
def server() -> Iterator[Stage]:
    """Give the embedded server with the template database."""
    with started() as stage:
        yield stage


@pytest.fixture
def sandbox(server: Stage) -> Iterator[StagedSandbox]:
    """Give a running sandbox on a fresh clone, with a frame pushed: ``url``, ``address``, ``push``, ``pop``."""
    with server.sandbox() as sandbox:
        yield sandbox

"""The sandbox answers as PostgreSQL does, byte for byte: every script of the corpus, and random ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .differential import Comparison, corpus, run_random
from .scripts import Script
from .stage import Stage, running

_RANDOM_SCRIPTS = 25
_SEED = 1
#: Of the corpus, what a session of one's own may have differently.
_FOR_OWN_DATABASES = {"drivers", "encodings", "settings"}


@pytest.fixture(scope="module")
def both(server: Stage) -> Iterator[Comparison]:
    """Give a server and a sandbox to compare."""
    with server.clone() as database, running(database) as sandbox:
        yield Comparison(server, sandbox)


@pytest.mark.parametrize("script", [pytest.param(script, id=f"{file}: {script.title}") for file, script in corpus()])
def test_script(both: Comparison, script: Script) -> None:
    """The script's messages are answered alike."""
    difference = both.run(script)

    assert not difference, difference


@pytest.fixture(scope="module")
def both_own(server: Stage) -> Iterator[Comparison]:
    """Do the same with a database of its own for each script."""
    with server.clone() as database, running(database) as sandbox:
        yield Comparison(server, sandbox, has_own=True)


@pytest.mark.parametrize("script", [pytest.param(s, id=s.title) for file, s in corpus() if file in _FOR_OWN_DATABASES])
def test_script_in_a_database_of_its_own(both_own: Comparison, script: Script) -> None:
    """There too, and without any limit."""
    difference = both_own.run(script)

    assert not difference, difference


def test_random_scripts(both: Comparison) -> None:
    """Random scripts of one connection are answered alike."""
    differences = list(run_random(both, _RANDOM_SCRIPTS, _SEED))

    assert not differences, "\n".join(differences)

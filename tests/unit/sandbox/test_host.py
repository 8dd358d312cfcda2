"""The host's net: a mistake of the sandbox's own costs a test, not the run."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.sandbox.core import Core
from pytest_chatdify_db.sandbox.host import Host

from .table import Table


def stumble(core: Core) -> None:
    """Fail as no code should, once more if the core is broken."""
    raise ValueError(f"a case nobody has thought of{' again' if core.broken else ''}")


def test_a_mistake_ends_the_shared_session(table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients are told what it was, and the log has where; what comes after it is not caught a second time."""
    host = Host.__new__(Host)
    host._core = core = table.core
    client = table.join()
    table.talk(client, "Q begin", "Q insert into t values (1)")

    host._guarded(stumble, core)
    (told,) = table.told(client)
    assert "the sandbox has met something that it cannot deal with, please report it: ValueError: a case nobody" in told
    assert "in stumble" in capsys.readouterr().err
    with pytest.raises(ValueError, match="thought of again"):
        host._guarded(stumble, core)

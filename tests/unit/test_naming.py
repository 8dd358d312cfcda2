"""Names of databases: recognisable, valid for PostgreSQL, never the same for different things."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pytest_chatdify_db import naming

RUN = "ab12cd34"
TEXTS = st.text(max_size=200)


@given(st.sampled_from([naming.template_name, naming.draft_name]), TEXTS)
def test_every_name_is_short_plain_and_of_its_run(make: object, text: str) -> None:
    """Whatever goes in, PostgreSQL takes the name as it is, unquoted even."""
    assert callable(make)
    name = make(RUN, text)

    assert name.startswith(naming.run_prefix(RUN))
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert len(name.encode()) <= naming.MAX_BYTES


@given(TEXTS.filter(lambda text: len(text) > 63), TEXTS.filter(lambda text: len(text) > 63))
def test_long_names_stay_different(one: str, other: str) -> None:
    """What is cut off still counts."""
    names = {naming.worker_name(RUN, "gw0", text) for text in (one, other)}

    assert len(names) == len({one, other}) or _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())[:70]


def test_names_tell_what_they_are() -> None:
    """Somebody who lists the databases sees run, worker and purpose."""
    assert naming.template_name(RUN, "0123456789abcdef") == "chatdify_db_ab12cd34_template_0123456789abcdef"
    assert naming.draft_name(RUN, "0123456789abcdef") == "chatdify_db_ab12cd34_draft_0123456789abcdef"
    assert naming.worker_name(RUN, "gw0") == "chatdify_db_ab12cd34_gw0"
    assert naming.worker_name(RUN, "main", "test_a[1]") == "chatdify_db_ab12cd34_main_test_a_1_"
    assert naming.run_prefix(RUN) == "chatdify_db_ab12cd34_"


def test_a_long_name_ends_in_a_hash_of_all_of_it() -> None:
    """The name stays readable, and two tests whose names begin alike have two databases."""
    one, other = (naming.worker_name(RUN, "main", "a" * 100 + end) for end in "xy")

    assert one.startswith("chatdify_db_ab12cd34_main_aaaa")
    assert len(one) == len(other) == naming.MAX_BYTES
    assert one != other


def test_different_names_have_different_locks() -> None:
    """Two runs that share a server do not wait for each other."""
    assert naming.lock_key("ab12cd34") != naming.lock_key("ab12cd35")


def test_a_run_is_no_prefix_of_another() -> None:
    """Dropping the databases of one run spares those of a run whose id begins the same."""
    assert not naming.worker_name("ab12cd345", "gw0").startswith(naming.run_prefix(RUN))


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_a_fingerprint_stands_for_its_parts(one: list[str], other: list[str]) -> None:
    """The same parts give the same fingerprint; other parts, another order or other borders give another."""
    assert re.fullmatch(r"[0-9a-f]{16}", naming.fingerprint(one))
    assert (naming.fingerprint(one) == naming.fingerprint(other)) is (one == other)


def test_borders_count() -> None:
    """Two texts are not the same as their concatenation."""
    assert len({naming.fingerprint(parts) for parts in (["ab"], ["a", "b"], ["", "ab"], ["b", "a"])}) == 4


@given(TEXTS)
def test_a_lock_key_fits_bigint(name: str) -> None:
    """PostgreSQL takes a signed 64-bit number."""
    assert -(2**63) <= naming.lock_key(name) < 2**63


def test_the_run_of_a_name() -> None:
    """It is read from the names of a run's databases, and from no other."""
    names = [
        naming.worker_name(RUN, "gw0", "1"),
        naming.draft_name(RUN, "0" * 16),
        naming.template_name(RUN, "0" * 16),
        naming.kept_template_name("0" * 16, RUN),
        "chatdify_db",
        "chatdify_db_short_main",
        "other",
    ]

    assert [naming.run_id(name) for name in names] == [RUN, RUN, RUN, None, None, None, None]

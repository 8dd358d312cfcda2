"""Addresses: parsed from URLs, rendered as URLs, secrets hidden."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_chatdify_db.postgres.address import Address, InvalidAddress

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
HOSTS = st.one_of(
    st.from_regex(r"\A[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?\Z"),
    st.ip_addresses().map(str),
    st.from_regex(r"\A/[a-z0-9 _@%+-]{1,10}\Z"),
)
OPTION_NAMES = st.sampled_from(["sslmode", "sslrootcert", "application_name", "options", "connect_timeout"])
ADDRESSES = st.builds(
    Address,
    host=HOSTS,
    port=st.integers(1, 65535),
    user=WORDS,
    password=st.none() | WORDS,
    database=WORDS,
    options=st.lists(st.tuples(OPTION_NAMES, WORDS), unique_by=lambda pair: pair[0]).map(tuple),
)


@given(ADDRESSES)
def test_a_rendered_url_is_parsed_to_the_same_address(address: Address) -> None:
    """Whatever is in a name, a password or an option survives its way through a URL."""
    assert Address.from_url(address.url()) == address


def test_defaults() -> None:
    """What a URL leaves out is what libpq takes, with the role postgres."""
    address = Address.from_url("postgresql://db")

    assert address == Address(host="db", port=5432, user="postgres", password=None, database="postgres")
    assert Address.from_url("postgres+asyncpg://alice@db").database == "alice"


def test_a_socket_directory_is_a_host() -> None:
    """The directory stands in the query, as in libpq's own URLs."""
    address = Address.from_url("postgresql:///shop?host=/run/pg&port=5433")

    assert (address.host, address.port, address.is_socket) == ("/run/pg", 5433, True)
    assert address.url() == "postgresql://postgres@/shop?host=/run/pg&port=5433"


def test_ipv6_is_bracketed() -> None:
    """An IPv6 address keeps its brackets in the URL."""
    assert Address(host="::1").url() == "postgresql://postgres@[::1]:5432/postgres"


def test_with_database_changes_nothing_else() -> None:
    """The same server and role, another database."""
    address = Address("db", 1, "u", "p", "a", (("sslmode", "require"),))

    assert address.with_database("b") == Address("db", 1, "u", "p", "b", (("sslmode", "require"),))


def test_json_and_back() -> None:
    """An address passes through a file of JSON unchanged."""
    address = Address("db", 1, "u", "p", "a", (("sslmode", "require"),))

    assert Address.from_fields(json.loads(json.dumps(dataclasses.asdict(address)))) == address


def test_no_secret_is_shown() -> None:
    """Neither str nor repr tells a password, of the role or of the client's key."""
    address = Address.from_url("postgresql://alice:s3cret@db/shop?sslpassword=k3y&sslmode=require")

    assert str(address) == "postgresql://alice:***@db:5432/shop?sslpassword=***&sslmode=require"
    assert not {"s3cret", "k3y"} & set(repr(address).replace("'", " ").split())


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("mysql://u:s3cret@db/x", "its scheme is 'mysql', not 'postgresql'"),
        ("postgresql://alice@corp/x:s3cret@db/x", "a '@' in a user name or password must be written as %40"),
        ("u:s3cret@db/x", "its scheme is 'u', not 'postgresql'"),
        ("/somewhere", "its scheme is missing, not 'postgresql'"),
        ("postgresql://", "it names no host (a socket directory is given as ?host=/directory)"),
        ("postgresql://u:s3cret@db:99999/x", "the port is not a number between 1 and 65535"),
        ("postgresql://u:s3cret@db:abc/x", "the port is not a number between 1 and 65535"),
        ("postgresql://u:s3cret@db/x?port=abc", "the port is not a number between 1 and 65535"),
        ("postgresql://u:s3cret@[db/x", "the port is not a number between 1 and 65535"),
    ],
)
def test_a_url_that_names_no_server(url: str, cause: str) -> None:
    """The error says what is wrong and does not repeat the URL."""
    with pytest.raises(InvalidAddress) as caught:
        Address.from_url(url)

    assert str(caught.value).replace("'missing'", "missing") == cause

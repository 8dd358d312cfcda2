"""URLs: every notation of a place, and each parameter as passed on, translated or refused for each driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from app.db.drivers import DriverOptions, asyncpg_arguments, psycopg2_arguments
from app.db.parameters import InvalidDatabaseURL, startup_settings
from app.db.urls import parse_url, url_from_parts

PASSWORD = "s3cr3t-Zq"
OPTIONS = DriverOptions(application_name="shop")
BASE = "postgresql://u:p@h:5433/db"


def sync_args(url: str, options: DriverOptions = OPTIONS) -> dict[str, object]:
    """Return psycopg2's arguments without the two that are always there."""
    arguments = psycopg2_arguments(parse_url(url), options).connect_args
    return {name: value for name, value in arguments.items() if name not in {"application_name", "connect_timeout"}}


def async_args(url: str, options: DriverOptions = OPTIONS) -> dict[str, object]:
    """Return asyncpg's arguments without the two that are always there."""
    arguments = asyncpg_arguments(parse_url(url), options).connect_args
    return {name: value for name, value in arguments.items() if name not in {"server_settings", "timeout"}}


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg", "postgresql+psycopg"]
)
def test_any_postgresql_scheme(scheme: str) -> None:
    """Whatever driver the URL names, each engine gets its own."""
    url = parse_url(f"{scheme}://u:p@h/db")

    assert psycopg2_arguments(url, OPTIONS).url.drivername == "postgresql+psycopg2"
    assert asyncpg_arguments(url, OPTIONS).url.drivername == "postgresql+asyncpg"


@pytest.mark.parametrize(
    ("text", "host", "port", "query"),
    [
        ("postgresql://u:p@h/db", "h", 5432, {}),
        ("postgresql://u:p@h:5433/db", "h", 5433, {}),
        ("  postgresql://u:p@h:5433/db\n", "h", 5433, {}),
        ("postgresql://u:p@[::1]:5433/db", "::1", 5433, {}),
        ("postgresql://u:p@/db?host=h&port=5433", "h", 5433, {}),
        ("postgresql://u:p@/db?host=h:5433", "h", 5433, {}),
        ("postgresql://u:p@/db?host=/run/pg", None, None, {"host": "/run/pg", "port": "5432"}),
        ("postgresql://u:p@/db?host=/run/pg&port=5433", None, None, {"host": "/run/pg", "port": "5433"}),
        ("postgresql://u:p@%2Frun%2Fpg:5433/db", None, None, {"host": "/run/pg", "port": "5433"}),
        ("postgresql://u:p@/db?host=a:1&host=b:2", None, None, {"host": ("a:1", "b:2")}),
        ("postgresql://u:p@/db?host=a:1,b:2", None, None, {"host": ("a:1", "b:2")}),
        ("postgresql://u:p@/db?host=a,b&port=1,2", None, None, {"host": ("a:1", "b:2")}),
        ("postgresql://u:p@/db?host=a,b&port=1", None, None, {"host": ("a:1", "b:1")}),
        ("postgresql://u:p@a:1,b/db", None, None, {"host": ("a:1", "b:5432")}),
        ("postgresql://a:1,b:2/db?user=u&password=p", None, None, {"host": ("a:1", "b:2")}),
        ("postgresql:///?host=h&user=u&password=p&dbname=db", "h", 5432, {}),
    ],
)
def test_places(text: str, host: str | None, port: int | None, query: dict[str, object]) -> None:
    """Every notation of hosts, ports and sockets comes out in one form."""
    url = parse_url(text)

    assert (url.username, url.password, url.database) == ("u", "p", "db")
    assert (url.host, url.port, dict(url.query)) == (host, port, query)
    assert parse_url(url.render_as_string(hide_password=False)) == url


@given(
    user=st.text(min_size=1).filter(str.strip),
    password=st.text(min_size=1),
    # SQLAlchemy 2.0 does not escape a "?" in the name of a database.
    database=st.text(min_size=1).map(lambda text: text.replace("?", "").strip()).filter(bool),
)
def test_any_text_survives(user: str, password: str, database: str) -> None:
    """A URL rendered from any role, password and database is read back as the same."""
    try:
        user.encode(), password.encode(), database.encode()
    except UnicodeEncodeError:
        return
    url = url_from_parts(user=user, password=password, host="h", port=5433, database=database)

    again = parse_url(url.render_as_string(hide_password=False))

    assert (again.username, again.password, again.database) == (user, password, database)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("h/db", "it is no URL (postgresql://user:password@host:port/database)"),
        ("mysql://h/db", "its scheme is 'mysql', not 'postgresql'"),
        ("postgresql://u:s3cr3t-Zq@x@h/db", "a '@' in the user name or password must be written as %40"),
        ("postgresql://u:s3cr3t-Zq@h:5x/db", "it cannot be read: is the port a number, and"),
        ("postgresql://u:s3cr3t-Zq@h:0/db", "its port is not a number between 1 and 65535"),
        ("postgresql://u:s3cr3t-Zq@/db?host=a:x&host=b", "its port is not a number between 1 and 65535"),
        ("postgresql://u:s3cr3t-Zq@/db?host=a,b,c&port=1,2", "it names another number of ports than hosts"),
        ("postgresql://u:s3cr3t-Zq@/db", "it names no host (a socket directory is given as ?host=/directory)"),
        ("postgresql://u:s3cr3t-Zq@a,/db", "it names no host"),
        ("postgresql://u:s3cr3t-Zq@h", "it names no database"),
        (f"{BASE}?sslmode=verify", "its parameter 'sslmode' must be one of: disable, allow, prefer, require"),
        (f"{BASE}?ssl=maybe", "its parameter 'ssl' must be true, false or one of: disable"),
        (f"{BASE}?target_session_attrs=rw", "'target_session_attrs' must be one of: any, read-write"),
        (f"{BASE}?connect_timeout=soon", "its parameter 'connect_timeout' must be a number"),
        (f"{BASE}?statement_cache_size=x", "its parameter 'statement_cache_size' must be a number"),
        (f"{BASE}?sslmode=allow&sslmode=require", "its parameter 'sslmode' is given more than once"),
        (f"{BASE}?options=search_path", "its parameter 'options' must be '-c name=value', repeated as needed"),
        (f"{BASE}?ssl_mode=require", "its parameter 'ssl_mode' is unknown to both drivers; did you mean sslmode"),
        (f"{BASE}?zzzzzz=1", "its parameter 'zzzzzz' is unknown to both drivers; known are: application_name, "),
    ],
)
def test_refused(text: str, cause: str) -> None:
    """A URL no driver could use is refused with the reason, before any connection and without its password."""
    with pytest.raises(InvalidDatabaseURL) as caught:
        parse_url(text)

    assert cause in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__context__ is None or PASSWORD not in str(caught.value.__context__)


def test_tls_goes_to_both() -> None:
    """TLS parameters reach libpq by name and asyncpg in a DSN, the one form in which it reads them."""
    url = f"{BASE}?sslmode=verify-full&sslrootcert=/etc/ca%20x.pem"

    assert sync_args(url) == {"sslmode": "verify-full", "sslrootcert": "/etc/ca x.pem"}
    assert async_args(url) == {"dsn": "postgresql://?sslmode=verify-full&sslrootcert=%2Fetc%2Fca+x.pem"}


@pytest.mark.parametrize(
    ("ssl", "sslmode"), [("true", "require"), ("on", "require"), ("False", "disable"), ("verify-ca", "verify-ca")]
)
def test_asyncpgs_ssl_is_translated(ssl: str, sslmode: str) -> None:
    """``ssl=`` as asyncpg spells it means the same to both."""
    assert sync_args(f"{BASE}?ssl={ssl}") == {"sslmode": sslmode}
    assert async_args(f"{BASE}?ssl={ssl}") == {"dsn": f"postgresql://?sslmode={sslmode}"}
    assert sync_args(f"{BASE}?ssl={ssl}&sslmode=allow") == {"sslmode": "allow"}


def test_key_password_is_in_no_text() -> None:
    """The password of a client key is passed on, and is in no text of the URL or the arguments."""
    for arguments in (
        psycopg2_arguments(parse_url(f"{BASE}?sslpassword={PASSWORD}"), OPTIONS),
        asyncpg_arguments(parse_url(f"{BASE}?sslpassword={PASSWORD}"), OPTIONS),
    ):
        assert PASSWORD not in f"{arguments!r} {arguments.url!r}"
        assert PASSWORD in str(arguments.connect_args)


def test_what_only_libpq_knows() -> None:
    """Socket tuning reaches libpq and is left out for asyncpg, which would refuse it."""
    url = f"{BASE}?keepalives_idle=30&channel_binding=require&client_encoding=utf8"

    assert sync_args(url) == {"keepalives_idle": "30", "channel_binding": "require", "client_encoding": "utf8"}
    assert async_args(url) == {}


def test_what_only_asyncpg_knows() -> None:
    """asyncpg's caches and timeouts reach it as numbers and are left out for libpq."""
    url = f"{BASE}?statement_cache_size=5&prepared_statement_cache_size=6&command_timeout=1.5"

    assert sync_args(url) == {}
    assert async_args(url) == {
        "statement_cache_size": 5,
        "prepared_statement_cache_size": 6,
        "command_timeout": 1.5,
    }


def test_several_hosts_with_a_role() -> None:
    """target_session_attrs and the hosts reach both drivers."""
    url = "postgresql://u:p@a:1,b:2/db?target_session_attrs=read-write"

    assert sync_args(url) == {"target_session_attrs": "read-write"}
    assert async_args(url) == {"dsn": "postgresql://?target_session_attrs=read-write"}
    assert dict(asyncpg_arguments(parse_url(url), OPTIONS).url.query) == {"host": ("a:1", "b:2")}


def test_settings_of_the_session() -> None:
    """Name, time limits and start-up settings of the layer and of the URL reach both drivers; the URL wins."""
    options = DriverOptions(connect_timeout=7, statement_timeout_ms=900, application_name="shop")
    plain = parse_url(BASE)
    own = parse_url(
        f"{BASE}?application_name=job&connect_timeout=3&options=-c%20statement_timeout=5%20-c%20search_path=x"
    )

    assert psycopg2_arguments(plain, options).connect_args == {
        "application_name": "shop",
        "connect_timeout": 7,
        "options": "-c statement_timeout=900",
    }
    assert asyncpg_arguments(plain, options).connect_args == {
        "timeout": 7.0,
        "server_settings": {"application_name": "shop", "statement_timeout": "900"},
    }
    assert psycopg2_arguments(own, options).connect_args == {
        "application_name": "job",
        "connect_timeout": 3,
        "options": "-c statement_timeout=5 -c search_path=x",
    }
    assert asyncpg_arguments(own, options).connect_args == {
        "timeout": 3.0,
        "server_settings": {"application_name": "job", "statement_timeout": "5", "search_path": "x"},
    }


def test_shortest_timeout_of_libpq() -> None:
    """A limit below libpq's shortest becomes that, two seconds; 0 in the URL means "for ever" to both drivers."""
    short = psycopg2_arguments(parse_url(BASE), DriverOptions(connect_timeout=0.2)).connect_args
    endless = parse_url(f"{BASE}?connect_timeout=0")

    assert short["connect_timeout"] == 2
    assert psycopg2_arguments(endless, OPTIONS).connect_args["connect_timeout"] == 0
    assert asyncpg_arguments(endless, OPTIONS).connect_args["timeout"] is None


def test_pgbouncer() -> None:
    """Behind PgBouncer no prepared statement is kept, and no two have one name."""
    arguments = async_args(BASE, DriverOptions(pgbouncer=True))
    name = arguments.pop("prepared_statement_name_func")

    assert arguments == {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    assert callable(name)
    assert name() != name()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("-c a=1 -cb=2 --c-d=3", {"a": "1", "b": "2", "c_d": "3"}),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}),
        ("-c x=y=z", {"x": "y=z"}),
    ],
)
def test_startup_settings(text: str, settings: dict[str, str]) -> None:
    """libpq's options text is read in its three spellings, with its escapes."""
    assert startup_settings(text) == settings


def test_url_is_sqlalchemys() -> None:
    """What comes out is SQLAlchemy's URL, whose text hides the password."""
    url = parse_url(f"postgresql://u:{PASSWORD}@h/db")

    assert isinstance(url, URL)
    assert str(url) == "postgresql://u:***@h:5432/db"

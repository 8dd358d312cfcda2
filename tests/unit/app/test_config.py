"""Settings: what the environment may say, what is said back when it is wrong, and that no password is ever shown."""

from __future__ import annotations

import importlib
import pickle
import traceback

import pytest

from app import config
from app.config import ConfigurationError, Settings, get_settings

PASSWORD = "s3cr3t-Zq"
URL = f"postgresql://anna:{PASSWORD}@db.example:5433/chat"


def failure_text() -> str:
    """Return all that a log would show of the error that reading the settings raises."""
    with pytest.raises(ConfigurationError) as caught:
        _ = get_settings().url
    return "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_POOL_SIZE", 10),
        ("DB_MAX_OVERFLOW", 20),
        ("DB_POOL_TIMEOUT", 30),
        ("DB_POOL_RECYCLE", 1800),
        ("DB_POOL_PRE_PING", True),
    ],
)
def test_documented_defaults(environment: pytest.MonkeyPatch, name: str, value: object) -> None:
    """The defaults are the documented ones, as fields and as constants of the module."""
    assert getattr(get_settings(), name) == value
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DB_POOL_SIZE", "3", 3),
        ("DB_MAX_OVERFLOW", "0", 0),
        ("DB_POOL_TIMEOUT", "2.5", 2.5),
        ("DB_POOL_RECYCLE", "-1", -1),
        ("DB_POOL_PRE_PING", "false", False),
        ("DB_PORT", "6432", 6432),
        ("DB_STATEMENT_TIMEOUT_MS", "1500", 1500),
    ],
)
def test_each_variable_is_read(environment: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    """A variable of the environment sets the field of its name."""
    environment.setenv(name, text)

    assert getattr(get_settings(), name) == value
    assert getattr(config, name) == value


def test_from_import_of_a_constant(environment: pytest.MonkeyPatch) -> None:
    """``from app.config import DB_POOL_SIZE`` works, as existing code has it."""
    environment.setenv("DB_POOL_SIZE", "4")

    from app.config import DB_POOL_SIZE

    assert DB_POOL_SIZE == 4


def test_database_url_as_a_constant(environment: pytest.MonkeyPatch) -> None:
    """``app.config.DATABASE_URL`` is the whole URL, also when it was given in parts."""
    for name, value in {"POSTGRES_USER": "anna", "POSTGRES_PASSWORD": "p@ss/w%rd", "POSTGRES_DB": "chat"}.items():
        environment.setenv(name, value)

    assert config.DATABASE_URL == "postgresql://anna:p%40ss%2Fw%25rd@localhost:5432/chat"


def test_unknown_constant(environment: pytest.MonkeyPatch) -> None:
    """A name that is no setting is an AttributeError, as of any module; ``dir`` lists the settings."""
    with pytest.raises(AttributeError, match=r"module 'app.config' has no attribute 'DB_POOLSIZE'"):
        _ = config.DB_POOLSIZE

    assert "DB_POOL_SIZE" in dir(config)


def test_settings_are_read_once(environment: pytest.MonkeyPatch) -> None:
    """The settings stay as first read until the cache is cleared."""
    first = get_settings()
    environment.setenv("DB_POOL_SIZE", "7")

    assert get_settings() is first

    get_settings.cache_clear()

    assert get_settings().DB_POOL_SIZE == 7


def test_empty_variables_count_as_unset(environment: pytest.MonkeyPatch) -> None:
    """Compose passes empty strings for variables it does not know: these are defaults."""
    environment.setenv("DB_POOL_SIZE", "")
    environment.setenv("DATABASE_URL", "")

    assert get_settings().DB_POOL_SIZE == 10
    assert get_settings().DATABASE_URL is None


def test_url_wins_over_parts(environment: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is used where the parts are set too."""
    environment.setenv("DATABASE_URL", URL)
    environment.setenv("POSTGRES_USER", "other")
    environment.setenv("DB_HOST", "other.example")

    assert str(get_settings().url) == "postgresql://anna:***@db.example:5433/chat"


def test_parts_take_any_password(environment: pytest.MonkeyPatch) -> None:
    """A password given in parts needs no escaping."""
    password = "a@b:c/d?e#f%41 \\ü'\""
    for name, value in {
        "POSTGRES_USER": "an na",
        "POSTGRES_PASSWORD": password,
        "POSTGRES_DB": "chat",
        "DB_HOST": "db",
        "DB_PORT": "6000",
    }.items():
        environment.setenv(name, value)

    url = get_settings().url

    assert (url.username, url.password, url.host, url.port, url.database) == ("an na", password, "db", 6000, "chat")


def test_socket_directory_as_host(environment: pytest.MonkeyPatch) -> None:
    """DB_HOST may be the directory of the server's socket."""
    for name, value in {
        "POSTGRES_USER": "anna",
        "POSTGRES_PASSWORD": "x",
        "POSTGRES_DB": "chat",
        "DB_HOST": "/run/postgresql",
    }.items():
        environment.setenv(name, value)

    assert dict(get_settings().url.query) == {"host": "/run/postgresql", "port": "5432"}


def test_nothing_set(environment: pytest.MonkeyPatch) -> None:
    """With nothing set, reading settings works, and asking for the URL names every missing variable."""
    assert get_settings().DB_POOL_SIZE == 10
    with pytest.raises(ConfigurationError) as caught:
        _ = get_settings().url
    assert str(caught.value) == (
        "The database is not configured.\n"
        "Cause: DATABASE_URL is not set, and of its parts these are missing: "
        "POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB.\n"
        "Tried: the environment variables DATABASE_URL, then POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.\n"
        "To fix this, either:\n"
        "  - name the database in one variable:  "
        "export DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/DATABASE\n"
        "  - set the missing parts:  export POSTGRES_USER=... POSTGRES_PASSWORD=... POSTGRES_DB=..."
    )


def test_one_part_missing(environment: pytest.MonkeyPatch) -> None:
    """The message names the missing part alone, and there is no default password."""
    environment.setenv("POSTGRES_USER", "anna")
    environment.setenv("POSTGRES_DB", "chat")

    with pytest.raises(ConfigurationError, match="these are missing: POSTGRES_PASSWORD\\."):
        _ = get_settings().url


def test_wrong_value_names_the_variable(environment: pytest.MonkeyPatch) -> None:
    """A value that cannot be used is shown beside its variable, with what is accepted and a command that fixes it."""
    environment.setenv("DB_POOL_SIZE", "ten")

    with pytest.raises(ConfigurationError) as caught:
        get_settings()

    assert str(caught.value) == (
        "The database settings cannot be used.\n"
        "Cause: DB_POOL_SIZE: input should be a valid integer, unable to parse string as an integer (it is 'ten')\n"
        "Tried: the environment variables of this process.\n"
        "To fix this, either:\n"
        "  - give the variable an accepted value:  export DB_POOL_SIZE=10\n"
        "  - remove it, where the default serves:  unset DB_POOL_SIZE"
    )


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("DB_POOL_SIZE", "0", "greater than or equal to 1"),
        ("DB_MAX_OVERFLOW", "-1", "greater than or equal to 0"),
        ("DB_POOL_TIMEOUT", "0", "greater than 0"),
        ("DB_POOL_TIMEOUT", "nan", "finite number"),
        ("DB_POOL_RECYCLE", "-2", "greater than or equal to -1"),
        ("DB_POOL_PRE_PING", "maybe", "valid boolean"),
        ("DB_PORT", "70000", "less than or equal to 65535"),
        ("DB_STATEMENT_TIMEOUT_MS", "0", "greater than or equal to 1"),
        ("DB_APPLICATION_NAME", "x" * 64, "at most 63 characters"),
    ],
)
def test_bounds(environment: pytest.MonkeyPatch, name: str, text: str, accepted: str) -> None:
    """A value out of bounds is refused with its bound; pool size 0 would mean "unlimited" to SQLAlchemy."""
    environment.setenv(name, text)

    with pytest.raises(ConfigurationError, match=rf"{name}: .*{accepted}.* \(it is '{text}'\)"):
        get_settings()


def test_every_problem_at_once(environment: pytest.MonkeyPatch) -> None:
    """Two wrong variables are both named."""
    environment.setenv("DB_POOL_SIZE", "x")
    environment.setenv("DB_PORT", "y")

    with pytest.raises(ConfigurationError) as caught:
        get_settings()

    assert "DB_POOL_SIZE: " in str(caught.value)
    assert "DB_PORT: " in str(caught.value)
    assert "unset DB_PORT DB_POOL_SIZE" in str(caught.value)


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_REPLICA_URL"])
@pytest.mark.parametrize(
    ("url", "cause"),
    [
        (f"mysql://anna:{PASSWORD}@h/db", "its scheme is 'mysql', not 'postgresql'"),
        (f"postgresql://anna:{PASSWORD}@x@h/db", "must be written as %40"),
        (f"postgresql://anna:{PASSWORD}@h:port/db", "it cannot be read: is the port a number"),
        (f"postgresql://anna:{PASSWORD}@/db", "it names no host"),
        (f"postgresql://anna:{PASSWORD}@h/db?sslmod=require", "'sslmod' is unknown to both drivers; did you mean sslm"),
    ],
)
def test_wrong_url_never_shows_the_password(environment: pytest.MonkeyPatch, name: str, url: str, cause: str) -> None:
    """A URL that cannot be used is explained, and its password is in no part of the traceback, locals included."""
    environment.setenv(name, url)

    text = failure_text()

    assert f"Cause: {name}: " in text
    assert cause in text
    assert f"export {name}=postgresql://USER:PASSWORD@HOST:5432/DATABASE" in text
    assert PASSWORD not in text


def test_missing_part_never_shows_the_password(environment: pytest.MonkeyPatch) -> None:
    """The password in POSTGRES_PASSWORD is not in the traceback of an error about the other parts."""
    environment.setenv("POSTGRES_PASSWORD", PASSWORD)

    assert PASSWORD not in failure_text()


def test_pgbouncer_and_statement_timeout(environment: pytest.MonkeyPatch) -> None:
    """A statement timeout, which PgBouncer refuses at connect, is refused before."""
    environment.setenv("DB_PGBOUNCER", "true")
    environment.setenv("DB_STATEMENT_TIMEOUT_MS", "1000")

    with pytest.raises(ConfigurationError, match="cannot pass through PgBouncer in transaction mode"):
        get_settings()


def test_settings_hide_passwords(environment: pytest.MonkeyPatch) -> None:
    """No text of the settings holds a password."""
    environment.setenv("DATABASE_URL", URL)
    environment.setenv("DATABASE_REPLICA_URL", URL)
    environment.setenv("POSTGRES_PASSWORD", PASSWORD)

    settings = get_settings()

    for text in (str(settings), repr(settings), settings.model_dump_json(), repr(settings.url), str(settings.url)):
        assert PASSWORD not in text
    assert settings.url.password == PASSWORD
    assert settings.replica_url is not None
    assert settings.replica_url.password == PASSWORD


def test_settings_cannot_change(environment: pytest.MonkeyPatch) -> None:
    """Settings are frozen, and refuse names that are no settings."""
    settings = get_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.DB_POOL_SIZE = 1
    with pytest.raises(ValueError, match="DB_POOLSIZE"):
        Settings(DB_POOLSIZE=3)  # type: ignore[call-arg]  # wrong on purpose


def test_configuration_error_is_not_hidden_by_import(environment: pytest.MonkeyPatch) -> None:
    """``from app.config import DB_POOL_SIZE`` and ``hasattr`` let the error through, and it can be pickled."""
    environment.setenv("DB_POOL_SIZE", "x")

    with pytest.raises(ConfigurationError) as caught:
        hasattr(importlib.import_module("app.config"), "DB_POOL_SIZE")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

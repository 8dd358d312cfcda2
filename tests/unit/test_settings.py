"""The options: precedence, sources, valid values."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.mistakes.options import OptionError
from pytest_chatdify_db.settings import SETTINGS, Options, is_near, nearest, resolve


def test_defaults() -> None:
    """With nothing given, every option has the default that `Options` declares."""
    options = resolve({}, {}, {})

    assert options == Options(sources=options.sources)
    assert {options.source(setting.name) for setting in SETTINGS} == {"default"}


@pytest.mark.parametrize(
    ("cli", "environ", "ini", "value", "source"),
    [
        ("database", "transaction", "transaction", "database", "command line"),
        (None, "database", "transaction", "database", "environment"),
        (None, None, "database", "database", "ini"),
        (None, "", "database", "database", "ini"),
        (None, None, "", "transaction", "default"),
        (" database ", None, None, "database", "command line"),
    ],
)
def test_precedence(cli: str | None, environ: str | None, ini: str | None, value: str, source: str) -> None:
    """The command line beats the environment, which beats the ini file; empty text counts as not given."""
    options = resolve(
        {"chatdify_db_isolation": cli},
        {} if environ is None else {"CHATDIFY_DB_ISOLATION": environ},
        {"chatdify_db_isolation": ini},
    )

    assert options.isolation == value
    assert options.source("isolation") == source


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.choices], ids=lambda each: each.name)
def test_choices(setting: object) -> None:
    """Every option with a list of choices takes these and refuses others, showing both."""
    from pytest_chatdify_db.settings import Setting

    assert isinstance(setting, Setting)
    for choice in setting.choices:
        assert getattr(resolve({setting.ini: choice}, {}, {}), setting.name) == choice

    with pytest.raises(OptionError) as caught:
        resolve({}, {setting.variable: "nonsense"}, {})

    assert f"the option {setting.variable} is not valid." in str(caught.value)
    assert "its value is 'nonsense' (from the environment)" in str(caught.value)
    assert " or ".join(repr(choice) for choice in setting.choices[-2:]) in str(caught.value)


@pytest.mark.parametrize("value", ["auto", "container", "embedded", "postgresql://u:p@h/d", "postgresql+asyncpg://h"])
def test_server(value: str) -> None:
    """The server is one of three words, or a URL."""
    options = resolve({"chatdify_db_server": value}, {}, {})

    assert options.server == value
    assert options.server_url == (value if "://" in value else None)


@pytest.mark.parametrize("value", ["docker", "", "mysql://me:secret@host/db", "me:secret@host"])
def test_wrong_server(value: str) -> None:
    """Anything else is refused, and no password in it is repeated."""
    with pytest.raises(OptionError, match="'auto', 'container', 'embedded' or a URL such as") as caught:
        resolve({"chatdify_db_server": value}, {}, {})

    assert "secret" not in str(caught.value)


def test_an_empty_image() -> None:
    """What is given empty on the command line is not the default."""
    with pytest.raises(OptionError, match=r"(?s)--chatdify-db-image is not valid.*set it to a value that is not empty"):
        resolve({"chatdify_db_image": ""}, {}, {})


def test_metadata_is_a_list() -> None:
    """Several metadata may be named, with commas or white space between them."""
    options = resolve({"chatdify_db_metadata": "app.db:Base, billing.models:Base.metadata\nother:m"}, {}, {})

    assert options.metadata == ("app.db:Base", "billing.models:Base.metadata", "other:m")


@pytest.mark.parametrize("value", ["app.db", "app.db:", ":Base", "app/db.py:Base", "app db:Base"])
def test_wrong_metadata(value: str) -> None:
    """What is not ``module:attribute`` is refused, with an example."""
    with pytest.raises(OptionError, match=r"'module:attribute', such as 'app\.db:Base'"):
        resolve({}, {}, {"chatdify_db_metadata": value})


def test_names() -> None:
    """An option's names follow from its short one, and no default is a value it refuses."""
    names = {setting.name: (setting.flag, setting.variable, setting.ini) for setting in SETTINGS}

    assert names["dirty_reads"] == ("--chatdify-db-dirty-reads", "CHATDIFY_DB_DIRTY_READS", "chatdify_db_dirty_reads")
    assert all(not setting.choices or setting.default in setting.choices for setting in SETTINGS)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("chatdify_db_metdata", ["chatdify_db_metadata"]),
        ("chatdify-db-n-plus-one", ["chatdify_db_n_plus_one"]),
        ("CHATDIFYDB_SERVER", ["CHATDIFY_DB_SERVER"]),
        ("CHATDIFY_DB_LEAK", ["CHATDIFY_DB_LEAKS"]),
        ("CHATDIFY_DB_USER", []),
        ("CHATDIFY_DB_SSL", []),
        ("CHATDIFY_DB_PASSWORD", []),
    ],
)
def test_nearest(name: str, near: list[str]) -> None:
    """A name that is almost an option's stands for it, spelt as in its place; another one stands for nothing."""
    assert is_near(name)
    assert nearest(name) == near


def test_another_prefix() -> None:
    """What begins otherwise is not this plugin's business."""
    assert not is_near("CHATDIFY_SERVER")
    assert not is_near("db_chatdify")

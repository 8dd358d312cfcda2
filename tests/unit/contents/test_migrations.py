"""What the migrations are told and how their failures are worded; Alembic itself runs in tests/plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_chatdify_db.contents import migrations
from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.postgres.address import Address


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return an ``alembic.ini`` with a directory of scripts."""
    (tmp_path / "scripts" / "versions").mkdir(parents=True)
    (tmp_path / "scripts" / "env.py").write_text("")
    (tmp_path / "scripts" / "versions" / "one.py").write_text("one")
    path = tmp_path / "alembic.ini"
    path.write_text("[alembic]\nscript_location = %(here)s/scripts\n")
    return path


def fingerprint(config: Path) -> str:
    """Return that of the recipe."""
    return migrations.recipe(config, None, unknown="run").fingerprint


def test_the_scripts_are_the_fingerprint(config: Path) -> None:
    """The same scripts give the same template; a changed, new or renamed one, or another file, another."""
    versions = config.parent / "scripts" / "versions"
    found = [fingerprint(config), fingerprint(config)]
    (versions / "__pycache__").mkdir()
    (versions / "__pycache__" / "one.pyc").touch()
    found.append(fingerprint(config))
    (versions / "one.py").write_text("changed")
    found.append(fingerprint(config))
    (versions / "one.py").rename(versions / "two.py")
    found.append(fingerprint(config))
    config.write_text(config.read_text() + "# changed")
    found.append(fingerprint(config))

    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 4


@pytest.mark.parametrize("name", ["alembic.ini", "pyproject.toml"])
def test_what_pyproject_names_is_the_fingerprint(config: Path, name: str) -> None:
    """Beside an ini file or alone; one that says nothing of Alembic is none of the inputs, nor one that is no TOML."""
    config.write_text("[alembic]\n")
    toml, script = config.with_name("pyproject.toml"), config.parent / "scripts" / "versions" / "one.py"
    others, found = [fingerprint(config)], []
    for text in ("[project]\n", "alembic ="):
        toml.write_text(text)
        others.append(fingerprint(config))
    for places in ('script_location = "%(here)s/scripts"', 'version_locations = ["%(here)s/scripts/versions"]'):
        toml.write_text(f"[tool.alembic]\n{places}\n")
        for code in ("one", "changed"):
            script.write_text(code)
            found.append(fingerprint(config.with_name(name)))

    assert len(set(others)) == 1
    assert len({*others, *found}) == 5


def test_a_configuration_that_cannot_be_read_is_left_to_alembic(config: Path) -> None:
    """Whether it is a mistake, Alembic says when it runs."""
    config.write_text("script_location =")

    assert fingerprint(config)


def test_the_environment_names_one_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that names the sandbox names the database to migrate, TLS as its address says."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://sandbox/x")
    monkeypatch.setenv("PGSERVICE", "other")
    plain = migrations._environment(Address("db", 5433, "u", "s3cret", "made"))
    secure = migrations._environment(Address("db", 5433, "u", None, "made", (("sslmode", "require"),)))

    assert plain["DATABASE_URL"] == "postgresql://u:s3cret@db:5433/made"
    assert (plain["PGHOST"], plain["POSTGRES_DB"], plain["PGSSLMODE"]) == ("db", "made", "disable")
    assert "PGSERVICE" not in plain
    assert secure["PGSSLMODE"] == "require"


def test_without_alembic(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is named, with the command that installs it."""
    monkeypatch.setattr(migrations, "find_spec", lambda name: None)

    with pytest.raises(SchemaError, match="Alembic is missing") as caught:
        fingerprint(config)
    assert "pip install alembic" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """Its whole path is shown."""
    with pytest.raises(SchemaError, match=f"{tmp_path}/nothing.ini is missing"):
        migrations.require(tmp_path / "nothing.ini")


def test_a_failed_migration_is_named() -> None:
    """Revision, file, cause and output are in the text; without a revision it says so."""
    failed = str(SchemaError.migration_failed("alembic.ini", "b2", "versions/two.py", "UndefinedTable: x", "printed"))
    broken = str(SchemaError.migration_failed("alembic.ini", "", "", "ImportError: y", ""))

    assert "the migration b2 failed (versions/two.py)." in failed
    assert "UndefinedTable: x" in failed
    assert "printed" in failed
    assert "the migrations cannot be run." in broken
    assert "correct env.py" in broken


@pytest.mark.parametrize(
    "cause",
    [
        'FeatureNotSupported: extension "citext" is not available',
        'UndefinedFile: could not open extension control file "/usr/share/postgresql/14/extension/citext.control"',
    ],
)
def test_a_migration_that_lacks_an_extension(cause: str) -> None:
    """It is told of servers that may have it; another one is not."""
    lacks = str(SchemaError.migration_failed("alembic.ini", "b2", "versions/two.py", cause, ""))
    other = str(SchemaError.migration_failed("alembic.ini", "b2", "versions/two.py", "UndefinedTable: x", ""))

    assert "  - take a server that has it: --chatdify-db-server=container" in lacks
    assert "take a server" not in other


def test_a_difference_is_shown_as_a_migration() -> None:
    """With the command that writes it."""
    text = str(SchemaError.migrations_differ("op.drop_table('x')"))

    assert "op.drop_table('x')" in text
    assert "alembic revision --autogenerate" in text


def test_models_that_cannot_be_compared() -> None:
    """The cause is Alembic's."""
    assert "no MetaData" in str(SchemaError.cannot_compare("alembic.ini", "CommandError: no MetaData", ""))

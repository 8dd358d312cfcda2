"""The files that configure Alembic and the scripts that they name, found without Alembic.

The rule: as the command ``alembic`` does, an ini file and the ``pyproject.toml`` beside it are read together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any, Final

_INI: Final = "alembic.ini"
_PROJECT: Final = "pyproject.toml"
_HERE: Final = "%(here)s"


def ini(config: Path) -> Path | None:
    """Return the ini file that *config* is, or that is beside it; None if there is none."""
    path = config.with_name(_INI) if config.name == _PROJECT else config
    return path if path.is_file() else None


def project(config: Path) -> Path | None:
    """Return the ``pyproject.toml`` that *config* is, or that is beside it, if it configures Alembic; else None."""
    return config.with_name(_PROJECT) if _settings(config) else None


def scripts(config: Path) -> Iterator[Path]:
    """Yield the files that configure Alembic and those in the directories of scripts that they name plainly.

    A template also notes every file that Alembic has read; this is to have one for each branch side by side.
    """
    yield from filter(None, (ini(config), project(config)))
    for place in filter(None, (*_named_in_ini(config), *_named_in_project(config))):
        for path in sorted((config.parent / place).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _named_in_ini(config: Path) -> list[str]:
    file = ini(config)
    parser = ConfigParser({"here": str(config.parent)})
    try:
        parser.read(() if file is None else file)
        return [
            parser.get("alembic", "script_location", fallback=""),
            *parser.get("alembic", "version_locations", fallback="").split(),
        ]
    except (Error, UnicodeError):
        return []


def _named_in_project(config: Path) -> list[str]:
    settings = _settings(config)
    further = settings.get("version_locations")
    places = [settings.get("script_location"), *(further if isinstance(further, list) else ())]
    return [place.replace(_HERE, str(config.parent)) for place in places if isinstance(place, str)]


def _settings(config: Path) -> Mapping[str, Any]:
    path = config.with_name(_PROJECT)
    if not path.is_file() or b"alembic" not in (text := path.read_bytes()):
        return {}
    import tomllib  # which most runs do without

    try:
        found = tomllib.loads(text.decode()).get("tool", {}).get("alembic", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}

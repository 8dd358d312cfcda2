"""The site: the README is its first page, and each page can be read where it lies, too, without the site."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "chatdify-db"
copyright = "the authors of chatdify-db"  # noqa: A001 - the name that Sphinx reads
release = metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
# "text" and "sh" are plain on purpose; a guess at another language would warn.
highlight_language = "none"

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False

_ROOT: Final = Path(__file__).resolve().parent.parent
_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^):]+)\)")


def setup(app: Sphinx) -> None:
    """Have each page read through `_of_site`, and each signature through `_signature`."""
    app.connect("source-read", _of_site)
    app.connect("autodoc-process-signature", _signature)


def _of_site(_app: Sphinx, name: str, source: list[str]) -> None:
    """Put the README before the first page's list of pages, and turn links of the repository to those of the site."""
    text = source[0]
    if name == "index":
        text = (_ROOT / "README.md").read_text(encoding="utf-8") + text
    source[0] = _LINK.sub(lambda link: _link(*link.groups()), text)


def _link(text: str, target: str) -> str:
    """Return a link to a page; only the text where the target is a file that the site does not have."""
    path, mark, heading = target.removeprefix("../").removeprefix("docs/").partition("#")
    page = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}.get(path, path)
    is_page = not page or (_ROOT / "docs" / page).is_file()
    return f"[{text}]({page}{mark}{heading})" if is_page else text


def _signature(*event: Any) -> tuple[str, str] | None:
    """Leave out what pytest alone passes to a fixture, and what nobody passes to a protocol."""
    value = event[3]
    is_fixture = type(value).__name__ == "FixtureFunctionDefinition"
    return ("", "") if is_fixture or getattr(value, "_is_protocol", False) else None

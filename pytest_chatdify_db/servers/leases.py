"""What runs leave to each other on a server that outlives them: templates for later runs, leftovers of dead ones.

A lease is a share of a lock that a session of the run holds, and so it ends with the run, however that dies. Nothing is
dropped before its lease could be taken, alone. A name says where to look and no more: a database counts as the plugin's
only if the plugin has said so in its comment, and if it belongs to the same role.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db import naming, traces
from pytest_chatdify_db.postgres.connection import Connection
from pytest_chatdify_db.postgres.errors import ServerError
from pytest_chatdify_db.servers import admin

#: How many templates stay on a server, those used last, and for how many seconds one that nobody uses.
MOST: Final = 20
LONGEST: Final = 14 * 24 * 3600.0

#: For how many seconds the database of a failed test stays.
LONGEST_FAILED: Final = 24 * 3600.0

_OTHERS: Final = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
_MAKER: Final = "pytest-chatdify-db"


@dataclass(frozen=True, slots=True)
class Note:
    """The comment of a database of the plugin.

    Args:
        used: When it was used last, in seconds of the server's clock.
        files: What it was made from beside its fingerprint: files and their digests.
    """

    used: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return the note as the text of a comment."""
        return json.dumps({"made by": _MAKER, "used": round(self.used), "files": dict(self.files)})

    @classmethod
    def from_text(cls, text: str) -> Note | None:
        """Read a comment; None if it is not the plugin's, or one of another form."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            data = json.loads(text)
            if data["made by"] == _MAKER:
                files = {str(path): str(digest) for path, digest in data["files"].items()}
                return cls(float(data["used"]), files)
        return None


def claim_run(connection: Connection, run: str) -> None:
    """Keep the databases of the run with the id *run* from being collected, as long as *connection* lasts."""
    with suppress(ServerError):
        # PostgreSQL may be told to end a session that is idle, and this one says nothing for the whole run.
        connection.query("SET idle_session_timeout = 0")
    admin.share_lock(connection, naming.run_prefix(run))


def find_template(connection: Connection, fingerprint: str) -> str | None:
    """Return a complete template for *fingerprint* whose files are as they were, and claim it; None if there is none.

    It is claimed as long as *connection* lasts.
    """
    for name, note in _notes(connection, naming.kept_template_name(fingerprint, "")):
        if traces.holds(note.files):
            admin.share_lock(connection, name)
            # It may have been collected before it was claimed.
            if admin.is_sealed(connection, name):
                touch(connection, name, note.files)
                return name
    return None


def touch(connection: Connection, name: str, files: Mapping[str, str]) -> None:
    """Note that the template *name*, made from *files*, is used now."""
    admin.comment(connection, name, Note(admin.clock(connection), files).to_text())


def idle_seconds(connection: Connection) -> float:
    """Return for how long nobody has used the server; 0 if somebody is connected to it."""
    if connection.query(_OTHERS):
        return 0.0
    ((started,),) = connection.query("SELECT extract(epoch FROM pg_postmaster_start_time())")
    now = admin.clock(connection)
    # A time to come was written by a clock that was wrong, and says nothing.
    used = [note.used for _, note in _notes(connection, naming.KEPT_PREFIX) if note.used <= now]
    return now - max([float(started or 0), *used])


def collect(connection: Connection) -> list[str]:
    """Drop what dead runs have left and templates that nobody has used for long; return their names."""
    dropped = []
    for name in [*_leftovers(connection), *_old_templates(connection), *_old_failed(connection)]:
        lease = naming.run_prefix(run) if (run := naming.run_id(name)) else name
        with admin.attempted_lock(connection, lease) as is_ours, suppress(ServerError):
            if is_ours:
                admin.drop_database(connection, name)
                dropped.append(name)
    return dropped


def _leftovers(connection: Connection) -> list[str]:
    return [name for name, _ in _notes(connection, naming.PREFIX) if naming.run_id(name)]


def _old_templates(connection: Connection) -> list[str]:
    now = admin.clock(connection)
    templates = sorted(_notes(connection, naming.KEPT_PREFIX), key=lambda found: found[1].used, reverse=True)
    # A time to come was written by a clock that was wrong, and says nothing.
    return [
        name for rank, (name, note) in enumerate(templates, start=1) if rank > MOST or abs(now - note.used) > LONGEST
    ]


def _old_failed(connection: Connection) -> list[str]:
    now = admin.clock(connection)
    found = _notes(connection, naming.FAILED_PREFIX)
    return [name for name, note in found if abs(now - note.used) > LONGEST_FAILED]


def _notes(connection: Connection, prefix: str) -> list[tuple[str, Note]]:
    found = ((name, Note.from_text(text)) for name, text in admin.comments(connection, prefix).items())
    return [(name, note) for name, note in found if note is not None]

"""Names of what the plugin makes on a server: recognisable, unique to a run, and never longer than PostgreSQL allows.

PostgreSQL cuts a longer name off silently, and two different databases would become one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b, sha256
from typing import Final

#: Every database of the plugin begins so; it never touches one that does not.
PREFIX: Final = "chatdify_db_"

#: So begins a template database that outlives its run.
KEPT_PREFIX: Final = f"{PREFIX}template_"

#: So begins the database of a failed test that outlives its run.
FAILED_PREFIX: Final = f"{PREFIX}failed_"

#: Bytes of a name, NAMEDATALEN - 1.
MAX_BYTES: Final = 63

_HASH_LENGTH: Final = 12


def fingerprint(parts: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that stand for the *parts*, their order and the borders between them."""
    digest = sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def template_name(run_id: str, fingerprint: str) -> str:
    """Return the name of the run's template database for the inputs with this *fingerprint*."""
    return _joined(run_id, "template", fingerprint)


def kept_template_name(fingerprint: str, build: str) -> str:
    """Return the name of a template database that outlives its run.

    Args:
        fingerprint: Of its inputs.
        build: Eight characters that tell two of the same inputs apart: files that the seed reads may differ.
    """
    return f"{KEPT_PREFIX}{_plain(fingerprint)}_{_plain(build)}"


def run_id(name: str) -> str | None:
    """Return the id of the run that a database called *name* belongs to; None if that is not the name of one."""
    match = re.fullmatch(rf"{PREFIX}([a-z0-9]{{8}})_\w+", name)
    return match[1] if match and not name.startswith(KEPT_PREFIX) else None


def draft_name(run_id: str, fingerprint: str) -> str:
    """Return the name that the template has while it is built."""
    return _joined(run_id, "draft", fingerprint)


def worker_name(run_id: str, worker: str, purpose: str = "") -> str:
    """Return the name of a database of one worker.

    Args:
        run_id: `Run.id`.
        worker: ``gw0``, ``main``, ...
        purpose: What it is for, if the worker has several: a test's id, a counter.
    """
    return _joined(run_id, worker, *([purpose] if purpose else []))


def failed_name(run_id: str, worker: str, purpose: str) -> str:
    """Return the name of a failed test's database that outlives its run; the parts are those of `worker_name`."""
    return FAILED_PREFIX + "_".join(map(_plain, (run_id, worker, purpose)))


def run_prefix(run_id: str) -> str:
    """Return how the name of every database of a run begins."""
    return f"{PREFIX}{_plain(run_id)}_"


def lock_key(name: str) -> int:
    """Return the number for an advisory lock called *name*."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _joined(run_id: str, *parts: str) -> str:
    """Return a name of lower-case letters, digits and ``_``; a long one ends in a hash of what was cut off."""
    name = run_prefix(run_id) + "_".join(map(_plain, parts))
    if len(name) <= MAX_BYTES:
        return name
    digest = fingerprint(parts)[:_HASH_LENGTH]
    return f"{name[: MAX_BYTES - _HASH_LENGTH - 1]}_{digest}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())

"""TLS for a connection to PostgreSQL: libpq's ``sslmode`` and certificate parameters turned into an `ssl.SSLContext`.

The parameters mean what section 32.19 of the PostgreSQL 18 manual says. Import this module only where TLS is used.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VERIFYING: Final = frozenset({"verify-ca", "verify-full"})

_HOME: Final = Path("~/.postgresql")


def context(mode: str, options: Mapping[str, str]) -> ssl.SSLContext:
    """Return the client context for *mode* with the certificates named in *options*.

    Args:
        mode: One of libpq's values of ``sslmode`` except ``disable``.
        options: ``sslrootcert`` (a file, or ``system``), ``sslcert``, ``sslkey``, ``sslpassword``.

    Raises:
        OSError: A certificate cannot be read, is not valid, or is needed and missing.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    root = options.get("sslrootcert", "")
    made.check_hostname = mode == "verify-full" or root == "system"
    made.verify_mode = ssl.CERT_REQUIRED if made.check_hostname or mode in VERIFYING else ssl.CERT_NONE
    if root == "system":
        made.load_default_certs()
    elif file := _certificate(root, "root.crt"):
        made.load_verify_locations(file)
        # The manual: a root certificate makes "require" behave like "verify-ca".
        if mode == "require":
            made.verify_mode = ssl.CERT_REQUIRED
    elif mode in VERIFYING:
        raise FileNotFoundError(f"sslmode={mode} needs a root certificate: sslrootcert, or {_HOME / 'root.crt'}")
    if certificate := _certificate(options.get("sslcert", ""), "postgresql.crt"):
        key = _certificate(options.get("sslkey", ""), "postgresql.key")
        made.load_cert_chain(certificate, key, options.get("sslpassword") or "")
    return made


def _certificate(given: str, default: str) -> str | None:
    """Return the file that was *given*, else the *default* one of the user if there is one."""
    if given:
        return given
    try:
        file = (_HOME / default).expanduser()
    except RuntimeError:  # a user without a home directory
        return None
    return str(file) if file.exists() else None

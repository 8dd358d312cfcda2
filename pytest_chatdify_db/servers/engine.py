"""The Docker engine, asked whether it is there before any Docker client is imported: that import takes a second."""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers.home import home

DEFAULT: Final = "unix:///var/run/docker.sock"
_TIMEOUT: Final = 5.0


def endpoint() -> str:
    """Return where the engine is: DOCKER_HOST, else the current context of ``docker``, else the usual socket."""
    return os.environ.get("DOCKER_HOST") or _of_context() or _usual_socket()


def require(engine: str) -> None:
    """Return if *engine* answers. One reached by ssh or TLS is left to the Docker client.

    Raises:
        ServerUnavailable: It does not, or may not be used by this user.
    """
    parts = urlsplit(engine)
    if parts.scheme not in {"unix", "tcp", "http"} or os.environ.get("DOCKER_TLS_VERIFY"):
        return
    connection = HTTPConnection("localhost", timeout=_TIMEOUT)
    try:
        if parts.scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(_TIMEOUT)
            connection.sock.connect(parts.path)
        else:
            connection.sock = socket.create_connection((parts.hostname or "localhost", parts.port or 2375), _TIMEOUT)
        connection.request("GET", "/_ping")
        if connection.getresponse().status >= 400:
            raise ServerUnavailable.no_engine(engine, "it answers with an error")
    except PermissionError:
        raise ServerUnavailable.engine_forbidden(engine) from None
    except FileNotFoundError:
        raise ServerUnavailable.no_engine(engine, "there is no such socket") from None
    except (OSError, HTTPException) as error:
        cause = str(getattr(error, "strerror", None) or error).strip().lower()
        raise ServerUnavailable.no_engine(engine, cause) from None
    finally:
        connection.close()


def is_beside_us(engine: str) -> bool:
    """Return whether the *engine* behind a unix socket runs in our own container or machine.

    If it does not, its socket was mounted into our container, and its loopback interface is not ours. The kernel
    tells who listens on a socket, and only of a process that we could see.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(urlsplit(engine).path)
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if not pid:
        return False
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except OSError:
        return True


def _usual_socket() -> str:
    """Return the first socket that exists: of the system, Docker Desktop, rootless Docker, Podman."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    for path in (DEFAULT.removeprefix("unix://"), f"{home()}/.docker/run/docker.sock", f"{runtime}/docker.sock"):
        if Path(path).exists():
            return f"unix://{path}"
    return DEFAULT


def _of_context() -> str | None:
    """Return the endpoint of the context that ``docker context use`` chose, if it is not the default one."""
    from hashlib import sha256

    directory = Path(os.environ.get("DOCKER_CONFIG", "") or home() / ".docker")
    with suppress(OSError, ValueError, KeyError, TypeError):
        name = os.environ.get("DOCKER_CONTEXT") or json.loads((directory / "config.json").read_text())["currentContext"]
        meta = directory / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    return None

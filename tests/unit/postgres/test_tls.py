"""TLS as libpq's parameters ask for it, against a server's side made of the standard library."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_chatdify_db.postgres import tls, wire
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.postgres.errors import TlsFailed

GREETING = wire.AUTHENTICATION_OK + wire.backend_key_data(77, b"key!") + wire.READY["I"]


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for localhost, and its key."""

    certificate: str
    key: str


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate that names localhost, not 127.0.0.1."""
    home = tmp_path_factory.mktemp("tls")
    made = Certificate(str(home / "cert.pem"), str(home / "key.pem"))
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-keyout", made.key, "-out", made.certificate],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home directory without certificates."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@contextmanager
def server(certificate: Certificate, *, wants_client: bool = False) -> Iterator[int]:
    """Serve one log-in over TLS on the port that is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if wants_client:
        context.load_verify_locations(certificate.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve() -> None:
        plain, _ = listener.accept()
        with plain, suppress(OSError):
            plain.recv(8)
            plain.sendall(b"S")
            with context.wrap_socket(plain, server_side=True) as peer:
                peer.recv(10_000)
                peer.sendall(GREETING)
                peer.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def address(port: int, *, host: str = "127.0.0.1", **options: str) -> Address:
    """Return an address with *options*."""
    return Address(host, port, options=tuple(options.items()))


@pytest.mark.parametrize("mode", ["prefer", "require"])
def test_encryption_without_proof_of_identity(certificate: Certificate, mode: str) -> None:
    """These modes take any certificate, as libpq does, and the session goes through TLS."""
    with server(certificate) as port, connect(address(port, sslmode=mode)).detach() as sock:
        assert isinstance(sock, ssl.SSLSocket)


@pytest.mark.parametrize(("mode", "host"), [("verify-ca", "127.0.0.1"), ("verify-full", "localhost")])
def test_a_certificate_that_is_trusted(certificate: Certificate, mode: str, host: str) -> None:
    """verify-ca looks at the signature alone, verify-full at the name too."""
    options = {"sslmode": mode, "sslrootcert": certificate.certificate}
    with server(certificate) as port, connect(address(port, host=host, **options)) as connection:
        assert connection.pid == 77


def test_a_certificate_for_another_name(certificate: Certificate) -> None:
    """verify-full refuses it and says why."""
    options = {"sslmode": "verify-full", "sslrootcert": certificate.certificate}
    with server(certificate) as port, pytest.raises(TlsFailed, match=r"TLS failed: .*not valid for '127\.0\.0\.1'"):
        connect(address(port, **options))


@pytest.mark.parametrize("root", ["system", None])
def test_a_certificate_that_nobody_trusts(certificate: Certificate, home: Path, root: str | None) -> None:
    """Neither the system nor the user's own root certificate signed it; with one, require verifies as well."""
    options = {"sslmode": "require"} | ({"sslrootcert": root} if root else {})
    if root is None:
        (home / ".postgresql").mkdir()
        other = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
        (home / ".postgresql" / "root.crt").write_bytes(other.read_bytes())
    with server(certificate) as port, pytest.raises(TlsFailed, match="certificate verify failed"):
        connect(address(port, host="localhost", **options))


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_verification_needs_a_root_certificate(mode: str) -> None:
    """The parameter and the file that libpq would take are named."""
    with pytest.raises(
        FileNotFoundError, match=f"sslmode={mode} needs a root certificate: sslrootcert, or ~/.postgresql"
    ):
        tls.context(mode, {})


@pytest.mark.parametrize("place", ["given", "home"])
def test_a_client_certificate(certificate: Certificate, home: Path, place: str) -> None:
    """It is sent if it is named, or lies where libpq looks for it."""
    options = {"sslmode": "require"}
    if place == "given":
        options |= {"sslcert": certificate.certificate, "sslkey": certificate.key}
    else:
        (home / ".postgresql").mkdir()
        for name, source in (("postgresql.crt", certificate.certificate), ("postgresql.key", certificate.key)):
            (home / ".postgresql" / name).write_bytes(Path(source).read_bytes())
    with (
        server(certificate, wants_client=True) as port,
        connect(address(port, **options)) as connection,
    ):
        assert connection.pid == 77


def test_a_client_certificate_that_is_missing(certificate: Certificate) -> None:
    """The server ends the handshake."""
    with server(certificate, wants_client=True) as port, pytest.raises(TlsFailed, match="TLS failed"):
        connect(address(port, sslmode="require"))

"""The log-in dialogue against published vectors and against a server's side written from RFC 5802."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.auth import Authentication, AuthenticationError, Scram, md5_response, saslprep

# RFC 7677, section 3.
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def scram() -> Scram:
    """Return the client of the RFC's example."""
    return Scram("pencil", user="user", nonce="rOprNGfwEbeRWgbNEkqO")


def request(code: int, data: bytes = b"") -> bytes:
    """Return the body of an Authentication message."""
    return wire.pack_int32(code) + data


def answer_of_server(password: str, first: bytes, iterations: int = 4096) -> tuple[bytes, bytes]:
    """Return a server's first message and the verifier it will send, for a client's *first* message."""
    nonce = first.split(b"r=")[1] + b"server"
    salt = b"0123456789abcdef"
    message = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), iterations)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    key = hmac.digest(salted, b"Server Key", "sha256")
    exchange = b"n=," + first.split(b"n=,")[1] + b"," + message + b",c=biws,r=" + nonce
    return message, b"v=" + base64.b64encode(hmac.digest(key, exchange, "sha256"))


def test_scram_of_rfc_7677() -> None:
    """The example exchange of the RFC, byte for byte."""
    client = scram()

    assert client.first() == CLIENT_FIRST
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)
    assert client.is_verified


@pytest.mark.parametrize("final", [b"v=" + base64.b64encode(b"x" * 32), b"e=other-error", b"", b"v="])
def test_scram_refuses_a_server_that_does_not_know_the_password(final: bytes) -> None:
    """Only the right signature is accepted."""
    client = scram()
    client.final(SERVER_FIRST)

    with pytest.raises(AuthenticationError, match="the server did not prove that it knows the password"):
        client.verify(final)
    assert not client.is_verified


def test_scram_refuses_a_signature_that_comes_too_early() -> None:
    """Before the exchange there is nothing that could be signed."""
    with pytest.raises(AuthenticationError, match="did not prove"):
        scram().verify(b"v=")


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (b"r=abc", "malformed SCRAM challenge"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096", "malformed SCRAM challenge"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=many", "malformed SCRAM challenge"),
        (b"r=someoneelse,s=AAAA,i=4096", "a SCRAM exchange that is not this one"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096", "a SCRAM exchange that is not this one"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1", "asks for 1 SCRAM rounds, fewer than 4096"),
        (b"\xff\xfe", "malformed SCRAM challenge"),
    ],
)
def test_scram_refuses_a_bad_challenge(challenge: bytes, text: str) -> None:
    """A challenge that is broken, repeated or too weak gets no proof."""
    with pytest.raises(AuthenticationError, match=text):
        scram().final(challenge)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_challenge_gives_a_proof_or_the_error(challenge: bytes) -> None:
    """No bytes of a server cause another exception."""
    with pytest.raises(AuthenticationError):
        scram().final(challenge)


def test_a_whole_scram_log_in() -> None:
    """From the offer of mechanisms, the one with channel binding among them, to the end."""
    dialogue = Authentication("alice", "pencil")

    first = dialogue.receive(request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
    name, offset = wire.cstring(first, 5)
    challenge, verifier = answer_of_server("pencil", first[offset + 4 :])
    final = dialogue.receive(request(11, challenge))

    assert name == b"SCRAM-SHA-256"
    assert final.startswith(b"p")
    assert dialogue.receive(request(12, verifier)) == b""
    assert dialogue.receive(request(0)) == b""
    assert dialogue.is_complete


def test_nonces_differ() -> None:
    """Two log-ins never share a nonce."""
    assert Scram("x").first() != Scram("x").first()


def test_a_server_may_not_skip_its_proof() -> None:
    """AuthenticationOk in the middle of SCRAM is what a server sends that does not know the password."""
    dialogue = Authentication("alice", "pencil")
    dialogue.receive(request(10, b"SCRAM-SHA-256\0\0"))

    with pytest.raises(AuthenticationError, match="without proving that it knows the password"):
        dialogue.receive(request(0))


def test_trust() -> None:
    """A server that asks for nothing gets nothing."""
    dialogue = Authentication("alice", None)

    assert dialogue.receive(request(0)) == b""
    assert dialogue.is_complete


def test_cleartext_and_md5() -> None:
    """The older methods send what section 53.2 describes."""
    dialogue = Authentication("alice", "pencil")
    inner = hashlib.md5(b"pencilalice").hexdigest().encode()

    assert dialogue.receive(request(3)) == wire.message(b"p", b"pencil\0")
    assert md5_response("alice", "pencil", b"salt") == b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode()
    assert dialogue.receive(request(5, b"salt")) == wire.message(b"p", md5_response("alice", "pencil", b"salt") + b"\0")


@pytest.mark.parametrize("body", [request(3), request(5, b"salt"), request(10, b"SCRAM-SHA-256\0\0")])
@pytest.mark.parametrize("password", [None, ""])
def test_a_missing_password_is_said(body: bytes, password: str | None) -> None:
    """Every method that needs a password says that there is none."""
    with pytest.raises(AuthenticationError, match="asks for a password and the address has none"):
        Authentication("alice", password).receive(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (request(7), "authentication by GSSAPI, which is not supported"),
        (request(42), "authentication by method 42, which is not supported"),
        (request(11, b"r="), "authentication by method 11, which is not supported"),
        (request(10, b"SCRAM-SHA-512\0\0"), "offers SCRAM-SHA-512 and not SCRAM-SHA-256"),
    ],
)
def test_what_is_not_spoken_is_named(body: bytes, text: str) -> None:
    """The error names the method that the server wants."""
    with pytest.raises(AuthenticationError, match=text):
        Authentication("alice", "pencil").receive(body)


@pytest.mark.parametrize(
    ("given_text", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013, section 3: mapped to nothing
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0031", "\u0627\u0031"),  # prohibited direction: unchanged
        ("\u0627\u0628", "\u0627\u0628"),
        ("\u00e4\u0007", "\u00e4\u0007"),  # prohibited character: unchanged
        ("\u00ad", "\u00ad"),  # nothing would be left: unchanged
    ],
)
def test_saslprep(given_text: str, prepared: str) -> None:
    """The examples of RFC 4013; what it forbids is used as it is, as PostgreSQL does."""
    assert saslprep(given_text) == prepared

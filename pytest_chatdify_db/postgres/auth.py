"""The log-in dialogue of a PostgreSQL client as bytes: what the server asks goes in, what to answer comes out.

Speaks trust, cleartext password, MD5 and SCRAM-SHA-256 without channel binding (sections 53.2 and 54.3 of the
PostgreSQL 18 manual, RFC 5802, RFC 7677). No I/O; modules of cryptography are imported by the method that needs them.
"""

from __future__ import annotations

from typing import Final

from pytest_chatdify_db.postgres.wire import int32, message, pack_int32

MECHANISM: Final = "SCRAM-SHA-256"

#: Fewer rounds than this are what only an impostor after the password would ask for (RFC 7677, section 4).
MINIMUM_ITERATIONS: Final = 4096

#: What a server may ask for that this client cannot give.
_UNSUPPORTED: Final = {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 9: "SSPI"}


class AuthenticationError(Exception):
    """The dialogue cannot go on: no password, a method not spoken here, or a server that failed to prove itself."""


class Authentication:
    """One log-in, from the first authentication request to AuthenticationOk.

    Args:
        user: The role that logs in.
        password: Its password; None if there is none.
    """

    __slots__ = ("_password", "_scram", "_user", "is_complete")

    def __init__(self, user: str, password: str | None) -> None:
        self._user = user
        self._password = password
        self._scram: Scram | None = None
        self.is_complete = False

    def receive(self, body: bytes) -> bytes:
        """Take the *body* of an Authentication message; return the bytes to send, empty if there is nothing to say.

        Raises:
            AuthenticationError: The server asks for what cannot be given, or did not prove that it knows the password.
        """
        code, data = int32(body), body[4:]
        if code == 0:
            if self._scram is not None and not self._scram.is_verified:
                raise AuthenticationError("the server ended the log-in without proving that it knows the password")
            self.is_complete = True
            return b""
        if code == 3:
            return _password_message(self._secret().encode())
        if code == 5:
            return _password_message(md5_response(self._user, self._secret(), data))
        if code == 10:
            return self._begin_scram(data)
        if self._scram is not None and code == 11:
            return message(b"p", self._scram.final(data))
        if self._scram is not None and code == 12:
            self._scram.verify(data)
            return b""
        method = _UNSUPPORTED.get(code, f"method {code}")
        raise AuthenticationError(f"the server asks for authentication by {method}, which is not supported")

    def _secret(self) -> str:
        if not self._password:
            raise AuthenticationError("the server asks for a password and the address has none")
        return self._password

    def _begin_scram(self, data: bytes) -> bytes:
        offered = [name.decode("ascii", "replace") for name in data.split(b"\0") if name]
        if MECHANISM not in offered:
            raise AuthenticationError(f"the server offers {', '.join(offered)} and not {MECHANISM}")
        self._scram = Scram(self._secret())
        first = self._scram.first()
        return message(b"p", MECHANISM.encode() + b"\0" + pack_int32(len(first)) + first)


class Scram:
    """The client's side of one SCRAM-SHA-256 exchange: `first`, `final`, `verify`, each once and in this order.

    Args:
        password: The password, before SASLprep.
        user: The name inside the exchange. PostgreSQL ignores it and takes the one of the start-up packet.
        nonce: The client's nonce; random if None.
    """

    # PostgreSQL reads "n" as "the client has no channel binding", so a server that lists -PLUS accepts it too.
    _GS2_HEADER: Final = b"n,,"

    __slots__ = ("_bare", "_nonce", "_password", "_signature", "is_verified")

    def __init__(self, password: str, *, user: str = "", nonce: str | None = None) -> None:
        if nonce is None:
            from base64 import b64encode
            from os import urandom

            nonce = b64encode(urandom(18)).decode()
        self._password = password
        self._nonce = nonce
        self._bare = f"n={user},r={nonce}".encode()
        self._signature = b""
        self.is_verified = False

    def first(self) -> bytes:
        """Return the client-first-message."""
        return self._GS2_HEADER + self._bare

    def final(self, server_first: bytes) -> bytes:
        """Return the client-final-message that answers *server_first*.

        Raises:
            AuthenticationError: The message is malformed or not an answer to ours.
        """
        from base64 import b64decode, b64encode
        from hashlib import pbkdf2_hmac, sha256

        fields = _attributes(server_first)
        try:
            nonce, salt, rounds = fields["r"], b64decode(fields["s"], validate=True), int(fields["i"])
        except (KeyError, ValueError):
            raise AuthenticationError("the server sent a malformed SCRAM challenge") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise AuthenticationError("the server answered a SCRAM exchange that is not this one")
        if rounds < MINIMUM_ITERATIONS:
            raise AuthenticationError(f"the server asks for {rounds} SCRAM rounds, fewer than {MINIMUM_ITERATIONS}")
        salted = pbkdf2_hmac("sha256", saslprep(self._password).encode(), salt, rounds)
        without_proof = b"c=" + b64encode(self._GS2_HEADER) + b",r=" + nonce.encode()
        exchange = b",".join((self._bare, server_first, without_proof))
        client_key = _hmac(salted, b"Client Key")
        mask = _hmac(sha256(client_key).digest(), exchange)
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self._signature = _hmac(_hmac(salted, b"Server Key"), exchange)
        return without_proof + b",p=" + b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """Check that *server_final* proves the server's knowledge of the password.

        Raises:
            AuthenticationError: It does not.
        """
        from base64 import b64encode
        from hmac import compare_digest

        expected = b64encode(self._signature).decode()
        if not self._signature or not compare_digest(_attributes(server_final).get("v", ""), expected):
            raise AuthenticationError("the server did not prove that it knows the password")
        self.is_verified = True


def md5_response(user: str, password: str, salt: bytes) -> bytes:
    """Return the answer to an MD5 password request with *salt* (53.2.5 of the manual)."""
    from hashlib import md5

    inner = md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    return b"md5" + md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def saslprep(password: str) -> str:
    """Return *password* prepared by RFC 4013, or unchanged where that forbids it, as PostgreSQL does."""
    if password.isascii():
        return password
    import stringprep
    from unicodedata import normalize

    mapped = (" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    prepared = normalize("NFKC", "".join(mapped))
    return prepared if prepared and _is_permitted(prepared) else password


def _is_permitted(text: str) -> bool:
    import stringprep

    prohibited = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if any(table(character) for character in text for table in prohibited):
        return False
    right_to_left = [stringprep.in_table_d1(character) for character in text]
    if not any(right_to_left):
        return True
    # RFC 3454, section 6: such a text begins and ends with such a character and holds none of the other direction.
    return right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, text))


def _password_message(secret: bytes) -> bytes:
    return message(b"p", secret + b"\0")


def _hmac(key: bytes, data: bytes) -> bytes:
    from hmac import digest

    return digest(key, data, "sha256")


def _attributes(text: bytes) -> dict[str, str]:
    return {part[:1]: part[2:] for part in text.decode("utf-8", "replace").split(",") if part[1:2] == "="}

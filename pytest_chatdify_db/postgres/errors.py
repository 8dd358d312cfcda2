"""What a plain connection raises: `ServerError` when the server said no, `ConnectError` when none was to be had."""

from __future__ import annotations

from typing import Final, Self

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address

NOT_POSTGRESQL: Final = "what answers there does not speak PostgreSQL's protocol"


class ConnectError(Exception):
    """No conversation with a server: unreachable, silent, not PostgreSQL, or no common way to log in.

    Attributes:
        address: Where it was tried.
        cause: What went wrong, in words, without the address.
    """

    def __init__(self, address: Address, cause: str) -> None:
        super().__init__(f"{address}: {cause}")
        self.address = address
        self.cause = cause


class TlsFailed(ConnectError):
    """TLS was wanted and could not be had: not offered, a certificate that is not trusted, no common version."""


class ServerError(Exception):
    """The server answered with an error.

    Attributes:
        sqlstate: Its five-character code.
        message: The primary message.
        detail: More, or an empty string.
        hint: Advice, or an empty string.
    """

    def __init__(self, sqlstate: str, message: str, detail: str = "", hint: str = "") -> None:
        lines = [f"{message} (SQLSTATE {sqlstate})"]
        lines += [f"DETAIL: {detail}"] if detail else []
        lines += [f"HINT: {hint}"] if hint else []
        super().__init__("\n".join(lines))
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Read the *body* of an ErrorResponse."""
        fields = wire.error_fields(body)
        return cls(fields.get("C", "XX000"), fields.get("M", ""), fields.get("D", ""), fields.get("H", ""))

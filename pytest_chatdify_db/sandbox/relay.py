"""Passing a server's answer on to a client, minus what only the sandbox asked for.

The rule: a client sees its own names, its own errors and each message once; ReadyForQuery is never passed on, since
the client's transaction status is not the server's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import refusals
from pytest_chatdify_db.sandbox.backend import Reply
from pytest_chatdify_db.sandbox.client import Client, Prepared
from pytest_chatdify_db.sandbox.refusals import OWN_DATABASE
from pytest_chatdify_db.sandbox.texts import Text

#: What a server answers where a statement needs a session without an open transaction, or ends one in a procedure.
_NEEDS_OWN_SESSION: Final = frozenset({"25001", "2D000"})

#: What it answers where a value that ALTER TYPE has added is used before it is committed; here, also after that.
_UNSAFE_ENUM_VALUE: Final = "55P04"

#: Errors about messages and texts, of which nothing has been executed.
_NOT_EXECUTED: Final = frozenset({"08P01", "42601"})

_CANCELLED: Final = "57014"

COMMAND_COMPLETE: Final = ord("C")
_OF_NO_ROW: Final = b" 0\0"
#: ParseComplete, BindComplete, CloseComplete and the three ends of an Execute.
_ANSWERS: Final = frozenset(b"123CIs")


@dataclass(slots=True)
class Parsing:
    """A Parse that is under way.

    Args:
        name: The client's name of the statement.
        prepared: The statement.
        previous: What the client had under that name.
        is_hidden: Whether the client did not ask for it.
        at: How many answers come before its own.
        is_done: Whether the server has confirmed it.
    """

    name: bytes
    prepared: Prepared
    previous: Prepared | None = None
    is_hidden: bool = False
    at: int = 0
    is_done: bool = False


class Relay(Reply):
    """The answer to a client's own messages.

    Args:
        client: Who gets it.
        prepared: Told of each statement that the server has prepared.
        text: The query text that was sent, where it is not the client's own.
        holds_tag: Whether the last command tag waits until ``release``, since a COMMIT may still fail.
        again: Whether the client has had BindComplete and CopyInResponse already, and must not hear of others than it
            has sent.
    """

    is_statement = True

    def __init__(
        self,
        client: Client,
        prepared: Callable[[Prepared], None] = lambda _: None,
        *,
        text: Text | None = None,
        holds_tag: bool = False,
        again: bool = False,
    ) -> None:
        super().__init__()
        self.client = client
        self.bound = 0  # how many portals the server has bound
        self.answered = 0  # how many of Parse, Bind, Close and Execute; none of Describe
        self.notice = b""  # goes out before the next command tag or the error in its place
        self.has_changed = False
        self.notice_at = 0  # how many answers come before that
        self.parses: deque[Parsing] = deque()
        self.texts: dict[int, Text] = {}  # those that are not the client's own, by how many answers come before
        self._prepared = prepared
        self._text = text
        self.holds_tag = holds_tag
        self.takes_data = self._again = again
        self._held = b""

    def passed(self, data: bytearray) -> None:
        """Pass a run of messages on."""
        self.release()
        self.client.out += data

    def special(self, kind: int, message: bytes) -> None:
        """Pass one message on, or keep it back."""
        self.answered += kind in _ANSWERS
        if kind == COMMAND_COMPLETE:
            self._complete(message)
            return
        if self._again and kind in b"123G":
            return
        if kind == 50:  # BindComplete
            self.bound += 1
        if kind == 49:  # ParseComplete
            parsing = self.parses.popleft()
            parsing.is_done = True
            self._prepared(parsing.prepared)
            if parsing.is_hidden:
                return
        elif kind == 69:  # ErrorResponse
            self.client.is_told_of_end |= b"\0VFATAL\0" in message
            message = self.error = self._own(message)
            if self.notice and self.answered == self.notice_at and self.fields.get("C") not in _NOT_EXECUTED:
                message = self.notice + message
        elif kind == 78:  # NoticeResponse
            message = self._own(message)
        elif kind == 115:  # PortalSuspended
            self.has_changed = True
        self.release()
        self.client.out += message

    def _own(self, message: bytes) -> bytes:
        text = self.texts.get(self.answered, self._text)
        message = _with_hint(self.client, own_words(self.client, message))
        return text.repositioned(message) if text is not None else message

    def _complete(self, message: bytes) -> None:
        self.release()
        self.has_changed = self.has_changed or not message.endswith(_OF_NO_ROW)
        self.client.out += self.notice
        self.notice = b""
        if self.holds_tag:
            self._held = message
        else:
            self.client.out += message

    def release(self) -> None:
        """Pass on the command tag that was kept back."""
        if self._held:
            self.client.out += self._held
            self._held = b""

    def withdraw(self) -> None:
        """Drop the command tag that was kept back: the COMMIT failed."""
        self._held = b""


class Probe(Reply):
    """The answer to a COPY FROM STDIN that is taken back at once: how the server would begin it, or why not."""

    is_statement = takes_data = True

    def __init__(self, client: Client, text: Text | None = None) -> None:
        super().__init__()
        self.client = client
        self.response = b""
        self._text = text

    def special(self, kind: int, message: bytes) -> None:
        """Keep CopyInResponse, or else the error."""
        if kind == 71:
            self.response = message
        elif kind == 69 and not self.response:
            message = _with_hint(self.client, own_words(self.client, message))
            self.error = self._text.repositioned(message) if self._text is not None else message


def own_words(client: Client, message: bytes) -> bytes:
    """Return an ErrorResponse or NoticeResponse as *client* would have had it from a session of its own."""
    if client.prefix in message:
        body = message[5:]
        for server_name, name in client.long_names.items():
            body = body.replace(b'"%s"' % server_name, b'"%s"' % name)
        message = wire.message(message[:1], body.replace(client.prefix, b""))
    if client.explanation and wire.error_fields(message[5:]).get("C") == _CANCELLED:
        message, client.explanation = refusals.deadlock(client.explanation), ""
    return message


def _with_hint(client: Client, message: bytes) -> bytes:
    """Return an ErrorResponse with the way out, where PostgreSQL would not have given it to a session of its own."""
    if message[0] != 69:
        return message
    fields = wire.error_fields(message[5:])
    code, transaction = fields.get("C"), client.transaction
    if code in _NEEDS_OWN_SESSION and "H" not in fields and not client.in_transaction:
        return wire.message(b"E", message[5:-1] + b"H" + OWN_DATABASE.encode() + b"\0\0")
    if code == _UNSAFE_ENUM_VALUE and (transaction is None or not transaction.defines):
        more = b" " + OWN_DATABASE.encode()
        said = [field + more if field[:1] == b"H" else field for field in message[5:-2].split(b"\0")]
        return wire.message(b"E", b"\0".join(said) + b"\0\0")
    return message

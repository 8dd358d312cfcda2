"""The PostgreSQL frontend/backend protocol as bytes: framing, builders and field parsers, no state and no I/O.

A message is one type byte, a four-byte length that counts itself, and a body. Only the first message of a client
(start-up, TLS request, cancel request) has no type byte. Section numbers are those of the PostgreSQL 18 manual,
chapter 54 "Frontend/Backend Protocol".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from struct import Struct
from typing import Final

# -- Numbers that stand where a start-up packet has its protocol version (54.2.1, 54.2.8, 54.2.10, 54.2.11)

PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = 3 << 16 | 2
CANCEL_REQUEST: Final = 1234 << 16 | 5678
SSL_REQUEST: Final = 1234 << 16 | 5679
GSSENC_REQUEST: Final = 1234 << 16 | 5680

#: A start-up packet may not be longer than this many bytes (MAX_STARTUP_PACKET_LENGTH in the server's pqcomm.h).
MAX_STARTUP_LENGTH: Final = 10_000

#: A message may not be longer than this many bytes (PQ_LARGE_MESSAGE_LIMIT, MaxAllocSize - 1 in the server).
MAX_MESSAGE_LENGTH: Final = 0x3FFFFFFF

_INT = Struct("!i")
_SHORT = Struct("!h")
_HEADER = Struct("!ci")
_PAIR = Struct("!ii")


class ProtocolViolation(Exception):
    """The peer sent bytes that are no message of the protocol.

    *message* is worded as the server words it; the SQLSTATE to answer with is 08P01.
    """


# -- Framing


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one message of type *kind*."""
    return _HEADER.pack(kind, len(body) + 4) + body


def first_packet_length(buffer: bytes | bytearray) -> int | None:
    """Return the length in bytes of the untyped packet at the head of *buffer*, or None if it is not all there yet.

    Raises:
        ProtocolViolation: The length is impossible.
    """
    if len(buffer) < 4:
        return None
    (length,) = _INT.unpack_from(buffer)
    if not 8 <= length <= MAX_STARTUP_LENGTH:
        raise ProtocolViolation("invalid length of startup packet")
    return length if len(buffer) >= length else None


def int32(data: bytes | bytearray | memoryview, offset: int = 0) -> int:
    """Return the signed 32-bit integer at *offset*."""
    value: int = _INT.unpack_from(data, offset)[0]
    return value


def int16(data: bytes | bytearray | memoryview, offset: int = 0) -> int:
    """Return the signed 16-bit integer at *offset*."""
    value: int = _SHORT.unpack_from(data, offset)[0]
    return value


def pack_int16(value: int) -> bytes:
    """Return *value* as a signed 16-bit integer."""
    return _SHORT.pack(value)


def pack_int32(value: int) -> bytes:
    """Return *value* as a signed 32-bit integer."""
    return _INT.pack(value)


def cstring(data: bytes, offset: int = 0) -> tuple[bytes, int]:
    """Return the zero-terminated string at *offset* and the offset behind its terminator.

    Raises:
        ProtocolViolation: There is no terminator.
    """
    end = data.find(b"\0", offset)
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return data[offset:end], end + 1


# -- What a client sends


def startup(parameters: Mapping[str, str], protocol: int = PROTOCOL_3_0) -> bytes:
    """Return a start-up packet with *parameters* (``user``, ``database``, settings)."""
    pairs = b"".join(part.encode() + b"\0" for item in parameters.items() for part in item)
    body = _INT.pack(protocol) + pairs + b"\0"
    return _INT.pack(len(body) + 4) + body


def startup_parameters(packet: bytes) -> dict[str, str]:
    """Return the parameters of a start-up *packet* (with its length and version).

    Raises:
        ProtocolViolation: The packet is not a list of zero-terminated pairs.
    """
    if packet[-1:] != b"\0":
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    parts = packet[8:-1].split(b"\0")
    if len(parts) % 2 == 0 or parts[-1]:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    texts = [part.decode("utf-8", "replace") for part in parts[:-1]]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def cancel_request(pid: int, key: bytes) -> bytes:
    """Return the packet that asks, on a connection of its own, to cancel what *pid* is doing."""
    return _INT.pack(12 + len(key)) + _PAIR.pack(CANCEL_REQUEST, pid) + key


def query(sql: str | bytes) -> bytes:
    """Return a simple Query."""
    text = sql.encode() if isinstance(sql, str) else sql
    return message(b"Q", text + b"\0")


SYNC: Final = message(b"S")
FLUSH: Final = message(b"H")
TERMINATE: Final = message(b"X")
COPY_DONE: Final = message(b"c")


# -- What a server sends

PARSE_COMPLETE: Final = message(b"1")
BIND_COMPLETE: Final = message(b"2")
CLOSE_COMPLETE: Final = message(b"3")
NO_DATA: Final = message(b"n")
EMPTY_QUERY: Final = message(b"I")
PORTAL_SUSPENDED: Final = message(b"s")
AUTHENTICATION_OK: Final = message(b"R", _INT.pack(0))

READY: Final[Mapping[str, bytes]] = {status: message(b"Z", status.encode()) for status in "ITE"}


def command_complete(tag: str) -> bytes:
    """Return the message that ends a statement, with its command *tag*."""
    return message(b"C", tag.encode() + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    """Return the message that reports a setting."""
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key_data(pid: int, key: bytes) -> bytes:
    """Return the message that tells a client how to cancel."""
    return message(b"K", _INT.pack(pid) + key)


def error_fields(body: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse or NoticeResponse *body* by their letter (54.8).

    ``S`` severity, ``C`` SQLSTATE, ``M`` message, ``D`` detail, ``H`` hint, ``P`` position, ``n`` constraint.
    """
    parts = (part.decode("utf-8", "replace") for part in body.split(b"\0"))
    return {part[0]: part[1:] for part in parts if part}


def _report(kind: bytes, severity: str, fields: Iterable[tuple[str, str]]) -> bytes:
    pairs = [("S", severity), ("V", severity), *fields]
    texts = (f"{code}{value}\0".encode("utf-8", "surrogateescape") for code, value in pairs if value)
    return message(kind, b"".join(texts) + b"\0")


def error(sqlstate: str, text: str, *, detail: str = "", hint: str = "", severity: str = "ERROR") -> bytes:
    """Return an ErrorResponse."""
    return _report(b"E", severity, [("C", sqlstate), ("M", text), ("D", detail), ("H", hint)])


def notice(sqlstate: str, text: str, *, detail: str = "", hint: str = "", severity: str = "WARNING") -> bytes:
    """Return a NoticeResponse."""
    return _report(b"N", severity, [("C", sqlstate), ("M", text), ("D", detail), ("H", hint)])


def row_values(body: bytes) -> Iterator[bytes | None]:
    """Yield the values of a DataRow *body*."""
    offset = 2
    for _ in range(int16(body)):
        length = int32(body, offset)
        offset += 4
        if length < 0:
            yield None
        else:
            yield body[offset : offset + length]
            offset += length

"""Messages as bytes: what is built is what the protocol says, and what cannot be read is a violation."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire


def test_a_message_has_a_length_that_counts_itself() -> None:
    """The type byte is not in it."""
    assert wire.message(b"Q", b"ab") == b"Q\0\0\0\6ab"
    assert wire.SYNC == b"S\0\0\0\4"
    assert wire.READY["I"] == b"Z\0\0\0\5I"


def test_a_startup_packet_is_read_as_it_was_built() -> None:
    """Names and values are in UTF-8."""
    packet = wire.startup({"user": "zoë", "database": "app"})

    assert wire.int32(packet, 4) == wire.PROTOCOL_3_0
    assert wire.startup_parameters(packet) == {"user": "zoë", "database": "app"}
    assert wire.first_packet_length(packet[:3]) is None
    assert wire.first_packet_length(packet[:-1]) is None
    assert wire.first_packet_length(packet + b"more") == len(packet)


@pytest.mark.parametrize("length", [0, 7, 10_001, -1])
def test_an_impossible_length_is_a_violation(length: int) -> None:
    """Before anything else is read."""
    with pytest.raises(wire.ProtocolViolation, match="invalid length of startup packet"):
        wire.first_packet_length(wire.pack_int32(length))


@pytest.mark.parametrize("tail", [b"user", b"user\0me", b"user\0me\0", b"user\0\0"])
def test_a_startup_packet_without_its_end_is_a_violation(tail: bytes) -> None:
    """Pairs and a terminator are all that may be in it."""
    with pytest.raises(wire.ProtocolViolation, match="expected terminator as last byte"):
        wire.startup_parameters(bytes(8) + tail)


def test_a_cancel_request_carries_a_key_of_any_length() -> None:
    """Four bytes up to protocol 3.0, more since 3.2."""
    for key in (b"abcd", bytes(32)):
        packet = wire.cancel_request(7, key)

        assert wire.first_packet_length(packet) == len(packet)
        assert (wire.int32(packet, 4), wire.int32(packet, 8), packet[12:]) == (wire.CANCEL_REQUEST, 7, key)


def test_strings_end_with_a_zero() -> None:
    """Without one they are a violation."""
    assert wire.cstring(b"ab\0cd\0", 3) == (b"cd", 6)
    with pytest.raises(wire.ProtocolViolation, match="invalid string in message"):
        wire.cstring(b"ab")


def test_errors_and_notices_have_fields() -> None:
    """Empty ones are left out."""
    error = wire.error("42P01", "no table", detail="really", hint="look", severity="FATAL")

    assert wire.error_fields(error[5:]) == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "42P01",
        "M": "no table",
        "D": "really",
        "H": "look",
    }
    assert wire.error_fields(wire.notice("25P01", "none")[5:]) == {
        "S": "WARNING",
        "V": "WARNING",
        "C": "25P01",
        "M": "none",
    }


def test_rows_are_values_and_nulls() -> None:
    """A length of -1 is NULL."""
    body = wire.pack_int16(2) + wire.pack_int32(2) + b"ab" + wire.pack_int32(-1)

    assert list(wire.row_values(body)) == [b"ab", None]


def test_the_servers_messages_are_built() -> None:
    """As it sends them itself."""
    assert wire.command_complete("SELECT 1") == b"C\0\0\0\rSELECT 1\0"
    assert wire.parameter_status("a", "b") == b"S\0\0\0\x08a\0b\0"
    assert wire.backend_key_data(1, b"abcd") == b"K\0\0\0\x0c\0\0\0\1abcd"

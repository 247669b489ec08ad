"""WebSocket frames, and whose fault an error in them is."""

from __future__ import annotations

import zlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, RsvBits

from trio_channels.server.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    BoundedDeflate,
    MessageLimit,
    between_messages,
    close_of,
    frame,
    whole_control,
    whole_message,
)
from trio_channels.server.tasks import clients_doing


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_of_any_size_is_read_by_a_client(size: int) -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frame(TEXT, b"a" * size) + frame(BINARY, b"b" * size))
    text, data = client.events()
    assert isinstance(text, TextMessage)
    assert isinstance(data, BytesMessage)
    assert (text.data, data.data) == ("a" * size, b"b" * size)


def test_message_limit_is_not_negotiated() -> None:
    limit = MessageLimit(10)
    assert limit.enabled()
    assert limit.offer() is False


def test_compressed_data_before_any_frame_is_refused() -> None:
    deflate = BoundedDeflate(10)
    deflate._inbound_is_compressible = deflate._inbound_compressed = True
    assert deflate.frame_inbound_payload_data(None, b"x") is CloseReason.PROTOCOL_ERROR  # type: ignore[arg-type]


def inflated(*frames: tuple[int, bool, bytes], compressed: bool) -> list[bytes | CloseReason | None]:
    """Read a message's frames (opcode, final, payload); returns the output at the end of each frame."""
    deflate, found = BoundedDeflate(1_000), []
    decoder = FrameProtocol(client=False, extensions=[deflate])
    for opcode, final, payload in frames:
        reserved = RsvBits(compressed and opcode != 0, False, False)
        deflate.frame_inbound_header(decoder, Opcode(opcode), reserved, len(payload))
        assert deflate.frame_inbound_payload_data(decoder, payload) == (b"text" if payload else b"")
        found.append(deflate.frame_inbound_complete(decoder, final))
    return found


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_may_be_compressed_or_not(opcode: int) -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"text") + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert inflated((opcode, True, packed), compressed=True) == [b""]
    assert inflated((opcode, False, packed), (0, True, b""), compressed=True) == [None, b""]
    assert inflated((opcode, True, b"text"), compressed=False) == [None]
    assert inflated((opcode, False, b"text"), (0, True, b""), compressed=False) == [None, None]


def test_group_is_the_clients_fault_if_all_of_it_is() -> None:
    theirs, ours = h11.RemoteProtocolError("no HTTP"), AttributeError("a mistake")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [theirs])])
    assert clients_doing(nested) is theirs
    assert clients_doing(ExceptionGroup("both", [theirs, ours])) is None


def masked(opcode: int, payload: bytes, *, first: int = 0x80, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65_536:
        length = bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    return bytes((first | opcode,)) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4_000, 65_535])
def test_whole_message_is_read_at_once(size: int) -> None:
    data = b"before" + masked(TEXT, b"a" * size) + b"after"
    text = {"type": "websocket.receive", "bytes": None, "text": "a" * size}
    assert whole_message(data, 6, 65_535) == (text, len(data) - 5)
    data = masked(BINARY, b"\xff" * size)
    binary = {"type": "websocket.receive", "bytes": b"\xff" * size, "text": None}
    assert whole_message(data, 0, 65_535) == (binary, len(data))


NOT_AT_ONCE = {
    "nothing": b"",
    "part of a head": masked(TEXT, b"text")[:5],
    "part of a long head": masked(TEXT, b"a" * 200)[:7],
    "part of a payload": masked(TEXT, b"text")[:-1],
    "first part of a message": masked(TEXT, b"text", first=0),
    "continuation": masked(0, b"text"),
    "close": masked(8, b""),
    "ping": masked(9, b""),
    "reserved opcode": masked(3, b""),
    "compressed": masked(TEXT, b"text", first=0xC0),
    "not masked": frame(TEXT, b"text of a server"),
    "not UTF-8": masked(TEXT, b"\xff"),
    "longer than the limit": masked(TEXT, b"a" * 2_000),
    "length in eight bytes": masked(BINARY, b"a" * 65_536),
    "length of two bytes that fits into one": bytes((0x81, 0x80 | 126, 0, 4)) + bytes(4) + b"text",
}


@pytest.mark.parametrize("kind", NOT_AT_ONCE)
def test_other_frames_are_left_to_wsproto(kind: str) -> None:
    assert whole_message(NOT_AT_ONCE[kind], 0, 1_000) is None


@given(st.binary(max_size=300), st.sampled_from(list(range(16))), st.sampled_from([0, 0x80, 0xC0]), st.integers(0, 400))
def test_message_read_at_once_is_as_wsproto_reads_it(payload: bytes, opcode: int, first: int, end: int) -> None:
    data = masked(opcode, payload, first=first)[:end]
    found = whole_message(data, 0, 1_000)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    events = list(server.events())
    if found is None:
        assert not any(isinstance(event, Message) and event.message_finished for event in events)
    else:
        event, end = found
        assert (event["bytes"] or event["text"] or "", end) == (events[0].data or "", len(data))  # type: ignore[attr-defined]


CODES = [0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65_535]
REASONS = [b"", b"bye", "\u00fc".encode(), b"\xff", b"x" * 123]
PAYLOADS = st.one_of(
    st.binary(max_size=130),
    st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, st.sampled_from(CODES), st.sampled_from(REASONS)),
)


@given(st.sampled_from([CLOSE, PING, PONG, TEXT, 11]), PAYLOADS, st.sampled_from([0x80, 0, 0xC0]), st.integers(0, 140))
def test_control_frame_read_at_once_is_as_wsproto_reads_it(opcode: int, payload: bytes, first: int, end: int) -> None:
    data = masked(opcode, payload, first=first)[:end]
    found = whole_control(b"x" + data, 1)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    events = list(server.events())
    if isinstance(event := events[0] if events else None, CloseConnection) and server.state is not ConnectionState.OPEN:
        assert found == (CLOSE, payload, 1 + len(data))
        assert close_of(payload) == (event.code, event.reason or "")
        assert frame(CLOSE, payload) == server.send(event.response())
    elif isinstance(event, Ping | Pong):
        assert found == ({Ping: PING, Pong: PONG}[type(event)], bytes(event.payload), 1 + len(data))
    else:  # no whole frame, another one, or a wrong one
        assert found is None


@pytest.mark.parametrize(
    ("data", "between"),
    [
        (masked(TEXT, b"text"), True),
        (masked(9, b"ping"), True),
        (masked(TEXT, b"te", first=0), False),
        (masked(TEXT, b"te", first=0) + masked(0, b"xt"), True),
        (masked(TEXT, b"text")[:1], False),
        (masked(TEXT, b"text")[:-1], False),
    ],
)
def test_place_between_messages_is_known(data: bytes, between: bool) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    list(server.events())
    assert between_messages(server) is between

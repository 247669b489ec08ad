"""Additions to wsproto: limits on incoming messages, as extensions, and a fast encoder for outgoing ones."""

from __future__ import annotations

import zlib
from typing import Any

from wsproto.connection import Connection
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import (
    LOCAL_ONLY_CLOSE_REASONS,
    CloseReason,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    RsvBits,
)

from .._asgi.close_codes import NO_STATUS

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

#: The first bytes of control frames.
_CONTROLS = (0x80 | CLOSE, 0x80 | PING, 0x80 | PONG)

#: Codes of a client's close: those of the protocol that may be sent, and from 3000 on those of libraries and programs.
_CODES = frozenset(CloseReason).difference(LOCAL_ONLY_CLOSE_REASONS)
_OWN_CODES = (3000, 4999)

_NOTHING_RESERVED = RsvBits(False, False, False)
_SHORT, _LONG = 126, 2**16


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message in one frame of a server, without extensions (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < _SHORT:
        return bytes((0x80 | opcode, size)) + payload
    if size < _LONG:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


#: The bit of a masked frame, in its second byte.
_MASKED = 0x80


def frame_of(message: Any) -> bytes:
    """The frame of a ``websocket.send``. Raises TypeError for a text that is no str."""
    data, text = message.get("bytes"), message.get("text")
    if data is not None:
        return frame(BINARY, bytes(data))
    if isinstance(text, str):
        return frame(TEXT, text.encode())
    raise TypeError(f"expected a str as the text of websocket.send, got {type(text).__name__}")


def whole_message(data: bytes, start: int, most: int) -> tuple[dict[str, Any], int] | None:
    """The event of the message at this place, and the place after it, if it is of the most frequent kind, or None.

    That is a final frame of text or bytes, masked, with no reserved bit, a length below 64 KiB in its shortest form and
    at most ``most``, all of it there, and valid UTF-8 if it is text. Call it only where a message begins.
    """
    end = len(data)
    if end < start + 6:
        return None
    first, size = data[start], data[start + 1]
    if size < _MASKED or (first != 0x80 | TEXT and first != 0x80 | BINARY):
        return None
    size -= _MASKED
    if size < _SHORT:
        at = start + 2
    elif size == _SHORT and end >= start + 8:
        size = int.from_bytes(data[start + 2 : start + 4])
        at = start + 4
        if size < _SHORT:
            return None
    else:
        return None
    begin = at + 4
    after = begin + size
    if after > end or size > most:
        return None
    mask = data[at:begin]
    masked = int.from_bytes(data[begin:after], "little")
    payload = (masked ^ int.from_bytes((mask * (size // 4 + 1))[:size], "little")).to_bytes(size, "little")
    if first == 0x80 | BINARY:
        return {"type": "websocket.receive", "bytes": payload, "text": None}, after
    try:
        return {"type": "websocket.receive", "bytes": None, "text": payload.decode()}, after
    except UnicodeDecodeError:
        return None


def whole_control(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """The opcode and payload of the control frame at this place, and the place after it, or None.

    It must be there as a whole, final, masked, with no reserved bit, and valid if it is a close.
    """
    at = start + 6
    if len(data) < at or data[start] not in _CONTROLS or not _MASKED <= data[start + 1] < _MASKED + _SHORT:
        return None
    after = at + data[start + 1] - _MASKED
    if len(data) < after:
        return None
    mask = data[start + 2 : at]
    payload = bytes([byte ^ mask[number & 3] for number, byte in enumerate(data[at:after])])
    opcode = data[start] & 0x0F
    return None if opcode == CLOSE and close_of(payload) is None else (opcode, payload, after)


def close_of(payload: bytes) -> tuple[int, str] | None:
    """The code and reason of a client's close frame (RFC 6455, section 7.4), or None if it must not be sent."""
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not (code in _CODES or _OWN_CODES[0] <= code <= _OWN_CODES[1]):
        return None
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        return None


class MessageLimit(Extension):
    """D10: refuses a message by the lengths in its frames' headers, before it reads the payload."""

    name = "trio-channels-message-limit"

    def __init__(self, most: int) -> None:
        self._most = most
        self._before = 0  # bytes of the message in its frames so far
        self._payload = 0
        self._is_control = False
        self.frames = 0  # whole ones so far
        self.why = ""  # the reason of a 1009

    def enabled(self) -> bool:
        """Always: it is not negotiated."""
        return True

    def offer(self) -> bool:
        """False: it is not offered to a peer."""
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Refuse a frame with which the message is too long."""
        # wsproto calls it again when a header comes in two parts: so nothing is summed up here.
        self._is_control = opcode.iscontrol()
        if self._is_control:
            return _NOTHING_RESERVED
        self._payload = payload_length
        first = opcode is not Opcode.CONTINUATION
        if first:
            self._before = 0
        if self._before + payload_length > self._most:
            got = f"a frame of {payload_length}" if first else f"{self._before + payload_length} or more"
            self.why = f"expected messages of at most {self._most} bytes, got {got}"
            return CloseReason.MESSAGE_TOO_BIG
        return _NOTHING_RESERVED

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> None:
        """Add a frame's length to its message's."""
        self.frames += 1
        if not self._is_control:
            self._before = 0 if fin else self._before + self._payload


class BoundedDeflate(PerMessageDeflate):
    """D11: permessage-deflate that inflates no message beyond the limit."""

    def __init__(self, most: int) -> None:
        # Between messages a connection keeps no window: 32 KiB to inflate and some 256 KiB to deflate.
        super().__init__(client_no_context_takeover=True, server_no_context_takeover=True)
        self._most = most
        self._inflated = 0
        self.why = ""  # the reason of a 1009

    @property
    def window(self) -> int:
        """The size of the window that the client inflates with, as a power of two: equal ones give equal frames."""
        return self.server_max_window_bits

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """As wsproto's, but a control frame is no part of the message; a new message is counted afresh."""
        if opcode.iscontrol():
            self._inbound_is_compressible = False
            return CloseReason.PROTOCOL_ERROR if rsv.rsv1 else _NOTHING_RESERVED
        if opcode is not Opcode.CONTINUATION:
            self._inflated = 0
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Inflate a part of a frame, within the limit."""
        if not self._inbound_compressed or not self._inbound_is_compressible:
            return data
        return self._inflate(data)

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """Inflate the four bytes that a client leaves out at the end of a message (RFC 7692, section 7.2.2)."""
        if not fin or not self._inbound_is_compressible:
            return None
        compressed, self._inbound_compressed = self._inbound_compressed, None
        if not compressed:
            return None
        data = self._inflate(b"\x00\x00\xff\xff")
        self._decompressor = None
        return data

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        if self._decompressor is None:
            return CloseReason.PROTOCOL_ERROR
        try:
            # One byte more than allowed tells a message that is too long from one that just fits.
            inflated = self._decompressor.decompress(data, self._most - self._inflated + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(inflated)
        if self._inflated > self._most:
            self.why = f"expected messages of at most {self._most} bytes, got one that inflates to more"
            return CloseReason.MESSAGE_TOO_BIG
        return inflated


def amid_frame(connection: Connection) -> bool:
    """Whether wsproto holds a part of a frame. It does not say so: hence its private fields, here and below."""
    try:
        decoder = connection._proto._frame_decoder
        return decoder.header is not None or len(decoder.buffer) > 0
    except AttributeError:  # pragma: no cover - another wsproto: slow frames are not cut
        return False


def between_messages(connection: Connection) -> bool:
    """Whether wsproto holds no part of a frame or message."""
    frames = connection._proto
    try:
        decoder, message = frames._frame_decoder, frames._message_decoder
        return decoder.header is None and not len(decoder.buffer) and message.opcode is None
    except AttributeError:  # pragma: no cover - another wsproto: every later byte is its own
        return False

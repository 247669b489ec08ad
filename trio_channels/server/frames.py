"""Additions to wsproto: limits on incoming messages, as extensions, and a fast encoder for outgoing ones."""

from __future__ import annotations

import zlib
from typing import Any

from wsproto.connection import Connection
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.handshake import server_extensions_handshake

TEXT, BINARY = 1, 2

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


class MessageLimit(Extension):
    """D10: refuses a message by the lengths in its frames' headers, before it reads the payload."""

    name = "trio-channels-message-limit"

    def __init__(self, most: int) -> None:
        self._most = most
        self._announced = 0

    def enabled(self) -> bool:
        """Always: it is not negotiated."""
        return True

    def offer(self) -> bool:
        """False: it is not offered to a peer."""
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Add a frame's length to its message's."""
        if not opcode.iscontrol():
            if opcode is not Opcode.CONTINUATION:
                self._announced = 0
            self._announced += payload_length
            if self._announced > self._most:
                return CloseReason.MESSAGE_TOO_BIG
        return _NOTHING_RESERVED


class BoundedDeflate(PerMessageDeflate):
    """D11: permessage-deflate that inflates no message beyond the limit."""

    def __init__(self, most: int) -> None:
        # Between messages a connection keeps no window: 32 KiB to inflate and some 256 KiB to deflate.
        super().__init__(client_no_context_takeover=True, server_no_context_takeover=True)
        self._most = most
        self._inflated = 0

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
        return CloseReason.MESSAGE_TOO_BIG if self._inflated > self._most else inflated


def agree(offered: list[str], deflate: BoundedDeflate) -> bytes | None:
    """The header that accepts an offer of compression. D1: an invalid offer is declined."""
    try:
        return server_extensions_handshake(offered, [deflate])
    except ValueError:
        return None


def between_messages(connection: Connection) -> bool:
    """Whether wsproto holds no part of a frame or message. It does not say so: hence its private fields."""
    frames = connection._proto
    try:
        decoder, message = frames._frame_decoder, frames._message_decoder
        return decoder.header is None and not len(decoder.buffer) and message.opcode is None
    except AttributeError:  # pragma: no cover - another wsproto: every later byte is its own
        return False

"""Additions to wsproto: limits on incoming messages, as extensions, and a fast encoder for outgoing ones."""

from __future__ import annotations

import zlib

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


class MessageLimit(Extension):
    """D10: refuses a message by the lengths in its frames' headers, before it reads the payload.

    Args:
        most: bytes of a message, over all its frames.
    """

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
    """D11: permessage-deflate that inflates no message beyond the limit.

    Without context takeover, so that a connection keeps no window between messages: 32 KiB to inflate and some 256 KiB
    to deflate.

    Args:
        most: bytes of an inflated message.
    """

    def __init__(self, most: int) -> None:
        super().__init__(client_no_context_takeover=True, server_no_context_takeover=True)
        self._most = most
        self._inflated = 0

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

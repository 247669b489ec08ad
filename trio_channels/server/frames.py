"""What is added to wsproto: limits on what comes in, as extensions, and a short way out."""

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
    """D10: a message is refused by what its frames' headers announce, before their payload is read.

    Args:
        most: bytes that a message may have, over all its frames.
    """

    name = "trio-channels-message-limit"

    def __init__(self, most: int) -> None:
        self._most = most
        self._announced = 0

    def enabled(self) -> bool:
        """Whether wsproto is to use it: always; it is not negotiated."""
        return True

    def offer(self) -> bool:
        """What a client would offer: nothing."""
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Count what a frame announces to its message."""
        if not opcode.iscontrol():
            if opcode is not Opcode.CONTINUATION:
                self._announced = 0
            self._announced += payload_length
            if self._announced > self._most:
                return CloseReason.MESSAGE_TOO_BIG
        return _NOTHING_RESERVED


class BoundedDeflate(PerMessageDeflate):
    """D11: permessage-deflate that inflates no message beyond the limit.

    Without context takeover: between messages a connection then keeps no window of its own, 32 KiB to inflate and some
    256 KiB to deflate.

    Args:
        most: bytes that a message may have when inflated.
    """

    def __init__(self, most: int) -> None:
        super().__init__(client_no_context_takeover=True, server_no_context_takeover=True)
        self._most = most
        self._inflated = 0

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """As wsproto's, which takes a control frame for the message's; and a message begins to be counted."""
        if opcode.iscontrol():
            self._inbound_is_compressible = False
            return CloseReason.PROTOCOL_ERROR if rsv.rsv1 else _NOTHING_RESERVED
        if opcode is not Opcode.CONTINUATION:
            self._inflated = 0
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Inflate a part of a frame, as far as the message may still grow."""
        if not self._inbound_compressed or not self._inbound_is_compressible:
            return data
        return self._inflate(data)

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """Inflate what the client has left out at the end of a message (RFC 7692, section 7.2.2)."""
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
    """D1: an offer of compression that makes no sense is declined."""
    try:
        return server_extensions_handshake(offered, [deflate])
    except ValueError:
        return None

"""Counts a client's frames before they are parsed. A client that sends too many frames without content is cut."""

from __future__ import annotations

import struct

import h2.exceptions
import trio

#: Frames without content that a client may send at once. Clients send some ten of them when they connect.
_BURST = 2_000

#: Frames without content that a client may send each second, for as long as it likes. Idle clients send a PING in ten
#: seconds; some measure the way with a PING for each round trip.
_PER_SECOND = 100

#: A request, for its PRIORITY_UPDATE, WINDOW_UPDATE and the like: half of a reset, so that a client may reset every
#: second request. A browser resets a handful.
REQUEST = 10

#: A stream that the client resets, or makes the server reset. Each costs the server an application instance
#: (CVE-2023-44487, "rapid reset"; CVE-2025-8671, "made you reset").
RESET = 20

#: A change of the settings: it may change the window of every stream.
CHANGE = 20

#: A DATA frame that was sent: clients answer with a WINDOW_UPDATE of the stream, one of the connection, and a PING.
SENT = 4

#: Frames that are handled before other tasks run.
FRAMES_PER_TURN = 64

#: The bytes with which a client begins (RFC 9113, section 3.4).
_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

#: The acknowledgement of settings has no content. It is the only frame whose size h2 calls PROTOCOL_ERROR.
_SETTINGS, _ACK = 4, 1

_HEAD = struct.Struct("!HBBBL")


class FrameCounter:
    """A token bucket. Each frame takes a token; content gives tokens back, and so does time."""

    def __init__(self, max_frame_size: int) -> None:
        self._max_frame_size = max_frame_size
        self._tokens = float(_BURST)
        self._refilled_at = trio.current_time()
        self._head = b""  # of a frame whose header has come in part
        self._left = _PREFACE  # bytes until the next frame
        self._begun = self._has_settings = False

    @property
    def exhausted(self) -> bool:
        """Whether the client has sent too many frames without content."""
        if self._tokens >= 0:
            return False
        now = trio.current_time()
        self.earn((now - self._refilled_at) * _PER_SECOND)
        self._refilled_at = now
        return self._tokens < 0

    def spend(self, tokens: int) -> None:
        """Take tokens."""
        self._tokens -= tokens

    def earn(self, tokens: float) -> None:
        """Give tokens back; the bucket holds a burst at most."""
        self._tokens = min(_BURST, self._tokens + tokens)

    def turn(self, data: bytes, start: int) -> int:
        """Count the frames of the next turn in ``data``, and return its end.

        Raises:
            ProtocolError: the first frame is not SETTINGS, or a frame announces more bytes than it may have.
        """
        position, frames = start, 0
        while position < len(data) and frames < FRAMES_PER_TURN:
            if self._left:
                step = min(self._left, len(data) - position)
                position += step
                self._left -= step
                if not self._begun:
                    self._begun = not self._left
                    break  # h2 looks at the preface first
                continue
            head = self._head + data[position : position + _HEAD.size - len(self._head)]
            position += len(head) - len(self._head)
            self._head = head
            if len(head) == _HEAD.size:
                self._head = b""
                frames += 1
                self._begin(head)
        self._tokens -= frames
        return position

    def _begin(self, head: bytes) -> None:
        high, low, kind, flags, _ = _HEAD.unpack(head)
        self._left = high << 8 | low
        is_ack = kind == _SETTINGS and flags & _ACK
        if not self._has_settings and (kind != _SETTINGS or is_ack):
            raise h2.exceptions.ProtocolError(f"expected SETTINGS as the first frame, got a frame of type {kind}")
        self._has_settings = True
        # h2 would wait for all of it, up to 16 MiB.
        most = 0 if is_ack else self._max_frame_size
        if self._left > most:
            raise h2.exceptions.FrameTooLargeError(f"expected at most {most} bytes in the frame, got {self._left}")

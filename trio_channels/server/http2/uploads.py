"""Bytes from the client on one stream: held until the application takes them, and at most a window of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

#: Bytes that a client may send on a stream before its application takes any: the default of RFC 9113, section 6.9.2.
WINDOW = 65_535

#: The same for a stream whose application takes them. At a round trip of 50 ms a client can send 10 MB a second.
WIDE_WINDOW = 512 * 1024

#: Streams of one connection with a wide window at a time. They bound the bytes that a connection holds.
WIDE_STREAMS = 8

#: Bytes that a client may send on all streams before the server has read any. The streams' own windows slow a client
#: down, so that a stream whose application takes nothing holds up no other.
CONNECTION_WINDOW = 1024 * 1024

#: Bytes of a body that are read and dropped after an early answer: a client may send all before it looks. Then it is
#: told to stop (RFC 9113, section 8.1).
MOST_DROPPED = 1024 * 1024


class Inflow:
    """The bytes of one stream that its application has not taken."""

    def __init__(self, widen: Callable[[], bool], *, body: bool) -> None:
        self._widen = widen
        self.body = body  # of a request, which the client has to send in time
        self.wide = False
        self.complete = False
        self._data = bytearray()
        self._gone = False
        self._readers = trio.lowlevel.ParkingLot()
        self._window = WINDOW
        self._taken = 0

    @property
    def starved(self) -> bool:
        """Whether the client has to send the next bytes."""
        return not (self._data or self.complete or self._gone)

    def add(self, data: bytes) -> None:
        """Add bytes."""
        self._data += data
        self._readers.unpark_all()

    def end(self) -> None:
        """Note that the client has sent everything."""
        self.complete = True
        self._readers.unpark_all()

    def cut(self) -> None:
        """Note that no more will come: the stream has gone."""
        self._gone = True
        self._readers.unpark_all()

    async def take(self) -> bytes:
        """Wait for bytes, and take all; b"" at the end, and when the stream has gone. Cancellation: nothing is lost."""
        while self.starved:
            await self._readers.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        data, self._data = bytes(self._data), bytearray()
        return data

    def opens_by(self, taken: int) -> int:
        """The bytes by which to open the window, now that so many were taken: 0 until half of the window is used up."""
        self._taken += taken
        if self.complete or self._gone or self._taken < self._window // 2:
            return 0
        increment, self._taken = self._taken, 0
        if not self.wide and self._widen():
            self.wide = True
            increment += WIDE_WINDOW - self._window
            self._window = WIDE_WINDOW
        return increment


class BodyInbox:
    """The events of one request, for the application: its body in as few parts as possible, then the disconnect."""

    def __init__(self, inflow: Inflow, taken: Callable[[int], None], expects: Callable[[], None]) -> None:
        self._inflow = inflow
        self._note_taken = taken
        self._invite = expects
        self._delivered = False
        self._last: Any = None
        self._over = trio.Event()

    def end(self, event: Any) -> None:
        """Add the last event, unless there is one, and wake every task that waits."""
        # Not async: a cancellation cannot interrupt it.
        if self._last is None:
            self._last = event
        self._over.set()
        self._inflow.cut()

    async def receive(self) -> Any:
        """The next event; after the last one, that again. A cancellation loses none."""
        if not self._delivered:
            if self._inflow.starved:
                self._invite()
            body = await self._inflow.take()
            more = not self._inflow.complete
            if body or not (more or self._delivered):
                self._delivered = not more
                self._note_taken(len(body))
                return {"type": "http.request", "body": body, "more_body": more}
        await self._over.wait()
        return self._last

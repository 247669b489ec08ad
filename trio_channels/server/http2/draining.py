"""The orderly end of an HTTP/2 connection: no request is lost between the client's and the server's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.errors
import trio
from hypercorn.events import Closed
from hyperframe.frame import GoAwayFrame

from ..limits import LINGER
from .sending import Sender

if TYPE_CHECKING:
    from ..connection import ServerConnection

#: The last stream of the first GOAWAY, which refuses none yet (RFC 9113, section 6.8).
_ANY_STREAM = 2**31 - 1

#: The content of the PING whose answer shows that the client has read the first GOAWAY.
_PING = b"draining"


class Draining(Sender):
    """A connection that can be drained."""

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(server_connection)
        self._last_stream = _ANY_STREAM  # beyond it the client may make its requests again, elsewhere
        self._drains = False
        self._noticed = trio.Event()
        self._fewer_streams = trio.lowlevel.ParkingLot()

    def drain(self) -> None:
        """Have the client make new requests elsewhere; end the connection when those it has made are answered."""
        if not self._drains:
            self._drains = True
            self.task_group.spawn(self._drain)

    async def _drain(self) -> None:
        # Some clients, those made with h2 among them, take no response after any GOAWAY.
        with trio.move_on_after(LINGER):
            await self._until_no_stream()
        if not self.closed:
            self.connection.ping(_PING)  # before GOAWAY, for the same reason
        await self._go_away(_ANY_STREAM)
        with trio.move_on_after(LINGER):
            await self._noticed.wait()
        self._last_stream = self.connection.highest_inbound_stream_id
        await self._go_away(self._last_stream)
        await self._until_no_stream()
        await self.send(Closed())

    async def _until_no_stream(self) -> None:
        while self.streams:
            await self._fewer_streams.park()

    async def _go_away(self, last_stream: int) -> None:
        # Not h2's, which sends no response any more after its own.
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=h2.errors.ErrorCodes.NO_ERROR)
        await self._server_connection.write(self.connection.data_to_send() + frame.serialize())

    def _note_pong(self, content: bytes | None) -> None:
        if content == _PING:
            self._noticed.set()

    async def farewell(self, why: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """End the connection with GOAWAY, also for requests that wait. Cancellation: may be sent in part."""
        self.connection.close_connection(why)
        await self._flush()

"""A request of hypercorn, over HTTP/1.1 or HTTP/2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

from .._concurrency.queues import Inbox
from .stream import begin, for_stream
from .tasks import ClientGone

if TYPE_CHECKING:
    from .connection import Connection


class HttpStream(HTTPStream):
    """One request.

    Args:
        wire: the connection it is on.
        send: where hypercorn's protocol takes its events.
        stream_id: as of HTTP/2.
    """

    app_put: Inbox | None  # type: ignore[assignment]

    def __init__(self, wire: Connection, send: Callable[[Event], Awaitable[None]], stream_id: int) -> None:
        super().__init__(*for_stream(wire, send, stream_id))
        self._wire = wire
        self.closed = not wire.streams.enter(self)

    async def handle(self, event: Event) -> None:
        """Take an event of the protocol. Cancellation: the event may be lost."""
        if isinstance(event, StreamClosed):
            if self.hang_up():
                await self.log_end()
        elif self.closed:
            return
        elif isinstance(event, Request):
            unknown = {"type": "http", "path": "", "method": "", "headers": []}
            if await begin(self, self._wire, super().handle(event), unknown):
                self._wire.served.requests.add(self)
        else:
            if self.app_put is not None and self.app_put.full:
                await self._wire.unread(self.app_put.room)
            await super().handle(event)

    def hang_up(self) -> bool:
        """Tell the application that there is no client any more; returns whether that is news.

        Not async, so that no cancellation comes between.
        """
        self._wire.streams.discard(self)
        self._wire.served.requests.discard(self)
        if self.closed:
            return False
        self.closed = True
        if self.app_put is not None:
            self.app_put.end({"type": "http.disconnect"})
        return True

    async def log_end(self) -> None:
        """Log a request whose client left before its answer was complete. Cancellation: as of the logger."""
        if self.state is not ASGIHTTPState.CLOSED:
            await self.config.log.access(self.scope, None, time() - self.start_time)  # type: ignore[arg-type]

    async def app_send(self, message: Any) -> None:
        """Take a message of the application.

        Raises:
            ClientGone: D4, the client has gone.

        Cancellation: seen before, or while the client does not take it, and then the connection is closed.
        """
        if message is not None and self.closed and self.state is not ASGIHTTPState.CLOSED:
            await trio.lowlevel.checkpoint()
            raise ClientGone(None, "the client has gone")
        await super().app_send(message)

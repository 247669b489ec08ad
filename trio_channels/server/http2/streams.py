"""Requests and WebSockets of an HTTP/2 connection. None of them makes the connection's reader wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.protocol.events import Body, EndBody
from hypercorn.protocol.http_stream import ASGIHTTPState

from ..limits import LINGER
from ..streams import HttpStream
from ..websocket import WebSocketStream
from .uploads import BodyInbox, Inflow

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.typing import AppWrapper

    from ..connection import ServerConnection
    from .protocol import Http2


class RequestStream(HttpStream):
    """One request."""

    def __init__(self, server_connection: ServerConnection, protocol: Http2, stream_id: int, inflow: Inflow) -> None:
        super().__init__(server_connection, protocol, stream_id)
        self._http2 = protocol
        self._inflow = inflow
        self._expects = False
        self.task_group: Any = self  # hypercorn has it start the application

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Any, send: Callable[..., Any]) -> BodyInbox:
        """Start the application with an inbox that makes no reader wait. Cancellation: atomic."""
        self._expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])
        inbox = BodyInbox(self._inflow, self._taken, self._invite)
        self._server_connection.tasks.start_app(app, config, scope, inbox.receive, send)
        return inbox

    def _taken(self, size: int) -> None:
        self._http2.taken(self.stream_id, self._inflow, size)

    def _invite(self) -> None:
        """Tell a client that waits for it to send the body: the application wants it, and has not answered."""
        if self._expects and self.state is ASGIHTTPState.REQUEST and not self.closed:
            self._expects = False
            self._http2.invite(self.stream_id)


class FedWebSocketStream(WebSocketStream):
    """One WebSocket. A task of its own gives it its bytes: while its application is busy, only that task waits."""

    def __init__(self, server_connection: ServerConnection, protocol: Http2, stream_id: int, inflow: Inflow) -> None:
        super().__init__(server_connection, protocol.stream_send, stream_id)
        self._http2 = protocol
        self._inflow = inflow
        self._busy = False
        self._fed = trio.lowlevel.ParkingLot()

    @property
    def is_read(self) -> bool:
        """Whether the client's bytes are read: otherwise its window may be closed, and it can send no pong."""
        return super().is_read and not self._busy

    @property
    def is_fed(self) -> bool:
        """Whether all bytes that have come were handled."""
        return not self._busy and (self._inflow.starved or self.closed)

    async def feed(self) -> None:
        """Handle the client's bytes until its end. Cancellation: bytes may be lost."""
        while data := await self._inflow.take():
            self._busy = True
            await self.handle(Body(stream_id=self.stream_id, data=data))
            self._busy = False
            self._http2.taken(self.stream_id, self._inflow, len(data))
            self._fed.unpark_all()
        if self._inflow.complete:
            await self.handle(EndBody(stream_id=self.stream_id))
        self._fed.unpark_all()

    async def settle(self) -> None:
        """Wait for the bytes to be handled that came before the client's end, if the application takes them soon."""
        with trio.move_on_after(LINGER):
            while not self.is_fed:
                await self._fed.park()

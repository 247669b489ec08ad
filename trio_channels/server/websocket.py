"""hypercorn's WebSocket, over HTTP/1.1 or HTTP/2, with its defects fixed. The numbers (D1...) are those of the docs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import trio
import trio.lowlevel
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState
from hypercorn.utils import valid_server_name
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from .._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL, SERVICE_RESTART
from .access_log import ServerLog
from .frames import BoundedDeflate, frame_of
from .handshake import Handshake, agree, scope_for
from .refusals import count_refusal
from .streams import begin
from .tasks import ClientGone
from .websocket_reader import WebSocketReader

if TYPE_CHECKING:
    from .connection import ServerConnection
    from .http1 import Http1

#: Seconds for a client to read the close frame of a shutdown.
_LAST_WORD = 2.0

_HANDSHAKE, _CONNECTED = ASGIWebsocketState.HANDSHAKE, ASGIWebsocketState.CONNECTED

#: The handshake of every accepted WebSocket.
_ANSWERED: Any = SimpleNamespace(accepted=True)


class WebSocketStream(WebSocketReader):
    """One WebSocket."""

    __slots__ = ()

    handshake: Handshake

    def __init__(
        self,
        server_connection: ServerConnection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        write: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(server_connection, send, stream_id, write)
        self.closed = not server_connection.streams.enter(self)

    async def handle(self, event: Event) -> None:
        """Handle an event from the client. Cancellation: the event may be lost."""
        if isinstance(event, StreamClosed):
            if self.hang_up():
                await self.log_end()
        elif self.closed:
            return
        elif isinstance(event, Body | Data):
            if self.handshake.accepted:
                await self.receive_bytes(event.data)
            else:
                # D7, and D1 in the same packet (hypercorn issue 225): RFC 6455, section 4.1, has a client wait for the
                # server's answer.
                await self._deny(400)
        elif isinstance(event, Request):
            await self._begin(event)
        else:  # EndBody, over HTTP/2: no close frame will come
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _begin(self, request: Request) -> None:
        unknown = {"type": "websocket", "path": "-", "http_version": request.http_version}
        if await begin(self, self._server_connection, self._open(request), unknown):
            self._server_connection.served.websockets.add(self)
            self.limit_handshake()
            if self._server_connection.served.ending:  # it began after the others were closed
                await self.go_away()

    async def _open(self, request: Request) -> None:
        """Start the application, or refuse the handshake."""
        self.start_time = time()
        self.handshake = Handshake(request.headers, request.http_version)
        self.scope = scope_for(self, request)
        if not valid_server_name(self.config, request):
            self.closed = True
            await self._send_error_response(404)
        elif not self.handshake.is_valid():
            self.closed = True
            await self._send_error_response(400)
        else:
            tasks: Any = self.task_group
            self.app_put = inbox = await tasks.spawn_app(self.app, self.config, self.scope, self.app_send)
            await inbox({"type": "websocket.connect"})

    async def _send_error_response(self, status_code: int) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        if status_code == 400 and hasattr(self, "handshake"):
            headers += self.handshake.refusal
        count_refusal(self._server_connection, status_code)
        await self.send(Response(stream_id=self.stream_id, status_code=status_code, headers=headers))
        await self.send(EndBody(stream_id=self.stream_id))
        await self.config.log.access(self.scope, {"status": status_code, "headers": []}, time() - self.start_time)

    async def _deny(self, status: int) -> None:
        """Answer the handshake for the application, which gets its disconnect first: it may be about to answer."""
        unanswered = self.state is _HANDSHAKE
        self._deaf = True
        self.hang_up()
        if unanswered:
            await self._send_error_response(status)
        await self.send(StreamClosed(stream_id=self.stream_id))

    def hang_up(self) -> bool:
        """D5, D15: send the application its disconnect and end the pings; returns False if that was done before."""
        # Not async: a cancellation cannot interrupt it.
        self._server_connection.served.clock.forget(self)
        self._server_connection.streams.discard(self)
        self._server_connection.served.websockets.discard(self)
        if self.closed:
            return False
        self.closed = True
        self._why = self._why or (ABNORMAL, "")
        if self.app_put is not None:
            code, reason = self._why
            self.app_put.end({"type": "websocket.disconnect", "code": code, "reason": reason})
        return True

    async def log_end(self) -> None:
        """Log the end of an accepted WebSocket, with its close code in the place of the status."""
        if self.handshake.accepted and isinstance(self.config.log, ServerLog):
            code, _ = self._why or (ABNORMAL, "")
            await self.config.log.access(self.scope, {"status": code, "headers": []}, time() - self.start_time)

    async def app_send(self, message: Any) -> None:
        """Handle a message of the application. Raises ClientGone (D4)."""
        if message is None:
            await self._application_ended()
        elif self.closed or self._deaf:  # D4: hypercorn returns at once, so that a loop of sends freezes the process
            await trio.lowlevel.checkpoint()
            raise self._gone()
        elif self._deflate is None and self.state is _CONNECTED and message["type"] == "websocket.send":
            await self._write(frame_of(message))
        else:
            if message["type"] == "websocket.close":
                self._why = self._why or (int(message.get("code", NORMAL)), message.get("reason") or "")
            await super().app_send(message)

    def write_now(self, message: Any, frames: dict[int, bytes]) -> bool:
        """Write a ``group.broadcast`` at once. False if the client has to be waited for, or this is HTTP/2 or TLS.

        `frames` holds what was written for the other clients, by the compression that they have agreed to.
        """
        if not self._alone or self.closed or self._deaf or self.state is not _CONNECTED:
            return False
        if self._frames is not None and self._frames.state is not ConnectionState.OPEN:
            return False
        kind = 0 if self._deflate is None else self._deflate.window
        data = frames.get(kind)
        if data is None:
            data = frames[kind] = self._encode(message)
        return self._server_connection.write_whole(data)

    def _encode(self, message: Any) -> bytes:
        if self._deflate is None:
            return frame_of(message)
        data = message.get("bytes")
        event = TextMessage(message["text"]) if data is None else BytesMessage(data)
        return self.connection.send(event)  # it keeps no window between messages, and depends on no earlier one

    def _gone(self) -> ClientGone:
        return ClientGone(*(self._why or (ABNORMAL, "")))

    async def _application_ended(self) -> None:
        if self.closed or self._deaf:  # the task that has made it deaf writes a close frame, and ends it then
            return
        if self.state is _HANDSHAKE:
            await self._send_error_response(500)
        elif self.state is _CONNECTED:
            self._why = self._why or (INTERNAL_ERROR, "")
            await self._send_wsproto_event(CloseConnection(code=INTERNAL_ERROR))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: Any) -> None:
        """D11: compression is off by default, and bounded. D10: no message beyond the limit."""
        limits = self._limits
        headers = list(message.get("headers", []))
        offered, self.handshake.extensions = self.handshake.extensions, None
        if limits.compression and offered:
            deflate = BoundedDeflate(limits.max_message_size)
            if agreed := agree(offered, deflate):
                headers.append((b"sec-websocket-extensions", agreed))
                self._deflate = deflate
        status, headers = self.handshake.answer(message.get("subprotocol"), headers)
        self.state = _CONNECTED
        if self._alone:
            self._server_connection.frames_to = self
        await self.send(Response(stream_id=self.stream_id, status_code=status, headers=headers))
        await self.config.log.access(self.scope, {"status": status, "headers": []}, time() - self.start_time)
        if self._alone:
            cast("Http1", self._server_connection.protocol).forget_handshake()
        self.handshake = _ANSWERED
        if not self.closed:  # the client may have gone meanwhile
            self.start_pings()

    async def go_away(self) -> None:
        """Close the WebSocket with 1012, since the server shuts down."""
        if self.closed:
            return
        is_closing, self._deaf = self._deaf, True
        self._why = self._why or (SERVICE_RESTART, "the server restarts")
        with trio.move_on_after(_LAST_WORD):
            if is_closing:
                pass
            elif self.state is _CONNECTED:
                await self._send_wsproto_event(CloseConnection(code=SERVICE_RESTART, reason="the server restarts"))
            elif self.state is _HANDSHAKE:
                await self._deny(503)
                return
        await self.send(StreamClosed(stream_id=self.stream_id))

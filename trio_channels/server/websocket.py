"""hypercorn's WebSocket, over HTTP/1.1 or HTTP/2, with its defects fixed. The numbers (D1...) are those of the docs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import trio
import trio.lowlevel
from hypercorn.protocol.events import Body, Data, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WebsocketBuffer
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.extensions import Extension
from wsproto.utilities import LocalProtocolError

from .._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL, POLICY_VIOLATION, SERVICE_RESTART
from .._concurrency.queues import Inbox
from .access_log import ServerLog
from .frames import BoundedDeflate, MessageLimit, agree, between_messages, frame_of, whole_message
from .limits import Rate
from .streams import begin
from .tasks import ClientGone
from .timing import TimedStream

if TYPE_CHECKING:
    from .connection import ServerConnection
    from .http1 import Http1

#: Seconds for a client to read the close frame of a shutdown.
_LAST_WORD = 2.0

#: Frames after which other tasks are let run: parts of a message and pongs cost the client nothing, and nobody waits.
_FRAMES_PER_TURN = 64

_HANDSHAKE, _CONNECTED = ASGIWebsocketState.HANDSHAKE, ASGIWebsocketState.CONNECTED

#: The handshake of every accepted WebSocket.
_ANSWERED: Any = SimpleNamespace(accepted=True)


class WebSocketStream(TimedStream):
    """One WebSocket."""

    __slots__ = ("_between", "_deaf", "_deflate", "_frames", "_rate", "_read", "_why", "_write")

    app_put: Inbox | None

    def __init__(
        self,
        server_connection: ServerConnection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        write: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(server_connection, send, stream_id, alone=write is not None)
        self.buffer = WebsocketBuffer(self._limits.max_message_size)
        self._write = write or self._write_event
        self._deflate: BoundedDeflate | None = None
        self._deaf = False
        self._why: tuple[int, str] | None = None
        self._rate = Rate(self._limits.messages_per_second)
        self._read = 0  # frames
        self._frames: Frames | None = None
        self._between = True  # wsproto holds no part of a message
        self.closed = not server_connection.streams.enter(self)

    @property
    def connection(self) -> Frames:  # type: ignore[override]
        """wsproto's side of the WebSocket; made when a frame first needs it."""
        if self._frames is None:
            extensions: list[Extension] = [MessageLimit(self._limits.max_message_size)]
            if self._deflate is not None:
                extensions.append(self._deflate)
            self._frames = Frames(ConnectionType.SERVER, extensions)
        return self._frames

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
        unknown = {"type": "websocket", "path": "", "headers": request.headers}
        if await begin(self, self._server_connection, super().handle(request), unknown):
            self._server_connection.served.websockets.add(self)
            self.limit_handshake()
            if self._server_connection.served.ending:  # it began after the others were closed
                await self.go_away()

    async def _deny(self, status: int) -> None:
        """Answer the handshake for the application, which gets its disconnect first: it may be about to answer."""
        unanswered = self.state is _HANDSHAKE
        self._deaf = True
        self.hang_up()
        if unanswered:
            await self._send_error_response(status)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def receive_bytes(self, data: bytes) -> None:
        """Handle frames, or parts of frames. Cancellation: messages may be lost."""
        start = 0
        while self._between and not self._has_ended():
            found = whole_message(data, start, self._limits.max_message_size)
            if found is None:
                break
            event, start = found
            if (waiting := self._deliver(event)) is not None:
                await waiting
        if start < len(data) and not self._has_ended():
            await self._parse(data[start:] if start else data)
            self._between = between_messages(self.connection)

    def _deliver(self, event: dict[str, Any]) -> Awaitable[object] | None:
        """Pass a message on; returns an awaitable if there is no room for it, or it is refused, or it is time."""
        if self._rate.exceeded():
            return self._refuse_flood()
        if not self.app_put.offer(event):  # type: ignore[union-attr]
            return self.app_put(event)  # type: ignore[misc]
        self._read += 1
        return _let_others_run() if self._read % _FRAMES_PER_TURN == 0 else None

    async def _parse(self, data: bytes) -> None:
        """Have wsproto parse frames, or parts of frames."""
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._read += 1
            if self._read % _FRAMES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, Message):
                self.buffer.extend(event)
                if event.message_finished:
                    if (waiting := self._deliver(self.buffer.to_message())) is not None:
                        await waiting
                    self.buffer.clear()
            elif isinstance(event, Ping):
                if self._rate.exceeded():
                    await self._refuse_flood()
                    return
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._receive_close(event)
                return
            if self._has_ended():
                return

    def _has_ended(self) -> bool:
        return self._deaf or self.closed

    async def _receive_close(self, event: CloseConnection) -> None:
        """D5 (hypercorn issue 127): the client's code and reason are the disconnect event's."""
        state = self.connection.state
        if state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            # D10, D11, D16: wsproto has refused a frame. The client gets the close code for it, and is read no more.
            await self._fail(int(event.code), event.reason or "")
            return
        self._deaf = True
        self._why = (int(event.code), event.reason or "")
        if state is ConnectionState.REMOTE_CLOSING:
            await self._send_wsproto_event(event.response())
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _fail(self, code: int, reason: str) -> None:
        """Close with a code, and read no more."""
        self._server_connection.served.count(f"closed {code}")
        self._deaf = True
        if self._why is None:
            self._why = (code, reason)
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _refuse_flood(self) -> None:
        await self._fail(POLICY_VIOLATION, f"more than {self._rate.per_second} messages a second")

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
        elif self.closed:  # D4: hypercorn returns at once, so that a loop of sends freezes the process
            await trio.lowlevel.checkpoint()
            raise self._gone()
        elif self._deflate is None and self.state is _CONNECTED and message["type"] == "websocket.send":
            if self._frames is not None and self._frames.state is not ConnectionState.OPEN:  # it is being closed
                await trio.lowlevel.checkpoint()
                raise self._gone()
            await self._write(frame_of(message))
        else:
            if message["type"] == "websocket.close":
                self._why = self._why or (int(message.get("code", NORMAL)), message.get("reason") or "")
            await super().app_send(message)

    def write_now(self, message: Any, frames: dict[int, bytes]) -> bool:
        """Write a ``group.broadcast`` at once. False if the client has to be waited for, or this is HTTP/2 or TLS.

        `frames` holds what was written for the other clients, by the compression that they have agreed to.
        """
        if not self._alone or self.closed or self.state is not _CONNECTED:
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
        if self.closed:
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
        status, headers, _ = self.handshake.accept(message.get("subprotocol"), headers)
        self.state = _CONNECTED
        if self._alone:
            self._server_connection.frames_to = self
        try:
            await self.send(Response(stream_id=self.stream_id, status_code=status, headers=headers))
        except Exception:  # an invalid header: nothing has been sent
            self._server_connection.frames_to = None
            self.state = _HANDSHAKE
            raise
        await self.config.log.access(self.scope, {"status": status, "headers": []}, time() - self.start_time)
        if self._alone:
            cast("Http1", self._server_connection.protocol).forget_handshake()
        self.handshake = _ANSWERED
        if not self.closed:  # the client may have gone meanwhile
            self.start_pings()

    async def _send_wsproto_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except LocalProtocolError:
            return  # a close is under way
        await self._write(data)

    async def _write_event(self, data: bytes) -> None:
        await self.send(Data(stream_id=self.stream_id, data=data))

    async def go_away(self) -> None:
        """Close the WebSocket with 1012, since the server shuts down."""
        if self.closed:
            return
        self._deaf = True
        self._why = self._why or (SERVICE_RESTART, "the server restarts")
        with trio.move_on_after(_LAST_WORD):
            if self.state is _CONNECTED:
                await self._send_wsproto_event(CloseConnection(code=SERVICE_RESTART, reason="the server restarts"))
            elif self.state is _HANDSHAKE:
                await self._deny(503)
                return
        await self.send(StreamClosed(stream_id=self.stream_id))


async def _let_others_run() -> None:
    await trio.lowlevel.checkpoint()

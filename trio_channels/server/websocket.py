"""hypercorn's WebSocket, over HTTP/1.1 or HTTP/2, with its defects fixed. The numbers (D1...) are those of the docs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WebsocketBuffer, WSStream
from hypercorn.utils import valid_server_name
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import Extension
from wsproto.utilities import LocalProtocolError

from .._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL, POLICY_VIOLATION, SERVICE_RESTART
from .._concurrency.queues import Inbox
from .access_log import ServerLog
from .frames import BINARY, TEXT, BoundedDeflate, MessageLimit, frame
from .handshake import Handshake, agree, scope_for
from .limits import SLOWEST, Rate
from .streams import begin, for_stream
from .tasks import ClientGone

if TYPE_CHECKING:
    from .connection import ServerConnection

#: Seconds beyond ``ACCEPT_TIMEOUT``: an application of trio-channels denies by itself first, with a better reason.
_AFTER_THE_APPLICATION = 1.0

#: Seconds for a client to read the close frame of a shutdown.
_LAST_WORD = 2.0

#: Frames after which other tasks are let run: parts of a message and pongs cost the client nothing, and nobody waits.
_FRAMES_PER_TURN = 64

_HANDSHAKE, _CONNECTED = ASGIWebsocketState.HANDSHAKE, ASGIWebsocketState.CONNECTED


class WebSocketStream(WSStream):
    """One WebSocket."""

    app_put: Inbox | None
    handshake: Handshake

    def __init__(
        self,
        server_connection: ServerConnection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        write: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(*for_stream(server_connection, send, stream_id))
        self._server_connection = server_connection
        self._limits = server_connection.limits
        self.buffer = WebsocketBuffer(self._limits.max_message_size)
        self._limit = MessageLimit(self._limits.max_message_size)
        self._deflate = BoundedDeflate(self._limits.max_message_size)
        self._write = write or self._write_event
        self._alone = write is not None  # with HTTP/1.1
        self._plain = True
        self._deaf = False
        self._why: tuple[int, str] | None = None
        self._beat = trio.CancelScope()
        self._answered = trio.Event()
        self._rate = Rate(self._limits.messages_per_second)
        self._events = 0
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
        unknown = {"type": "websocket", "path": "", "headers": request.headers}
        if await begin(self, self._server_connection, self._open(request), unknown):
            self._server_connection.served.websockets.add(self)
            self.task_group.spawn(self._watch)
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

    async def receive_bytes(self, data: bytes) -> None:
        """Handle frames, or parts of frames. Cancellation: messages may be lost."""
        if self._has_ended():
            return
        self._limit.received += len(data)
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._events += 1
            if self._events % _FRAMES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, Message):
                self.buffer.extend(event)
                if event.message_finished:
                    if self._rate.exceeded():
                        await self._refuse_flood()
                        return
                    await self.app_put(self.buffer.to_message())  # type: ignore[misc]
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
            await self._fail(int(event.code), self._limit.why or self._deflate.why or event.reason or "")
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
        self._beat.cancel()
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
        if hasattr(self, "connection") and isinstance(self.config.log, ServerLog):
            code, _ = self._why or (ABNORMAL, "")
            await self.config.log.access(self.scope, {"status": code, "headers": []}, time() - self.start_time)

    async def app_send(self, message: Any) -> None:
        """Handle a message of the application. Raises ClientGone (D4)."""
        if message is None:
            await self._application_ended()
        elif self.closed:  # D4: hypercorn returns at once, so that a loop of sends freezes the process
            await trio.lowlevel.checkpoint()
            raise ClientGone(*(self._why or (ABNORMAL, "")))
        elif self._plain and self.state is _CONNECTED and message["type"] == "websocket.send":
            await self._send_message(message)
        else:
            if message["type"] == "websocket.close":
                self._why = self._why or (int(message.get("code", NORMAL)), message.get("reason") or "")
            await super().app_send(message)

    async def _send_message(self, message: Any) -> None:
        if self.connection.state is not ConnectionState.OPEN:  # it is being closed
            await trio.lowlevel.checkpoint()
            raise ClientGone(*(self._why or (ABNORMAL, "")))
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            await self._write(frame(BINARY, bytes(data)))
        elif isinstance(text, str):
            await self._write(frame(TEXT, text.encode()))
        else:
            raise TypeError(f"expected a str as the text of websocket.send, got {type(text).__name__}")

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
        extensions: list[Extension] = [self._limit, self._deflate]
        headers = list(message.get("headers", []))
        offered, self.handshake.extensions = self.handshake.extensions, None
        if self._limits.compression and offered and (agreed := agree(offered, self._deflate)):
            headers.append((b"sec-websocket-extensions", agreed))
            self._plain = False
        status, headers, _ = self.handshake.accept(message.get("subprotocol"), headers)
        self.connection = Frames(ConnectionType.SERVER, extensions)
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
        self._answered.set()

    async def _send_wsproto_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except LocalProtocolError:
            return  # a close is under way
        await self._write(data)

    async def _write_event(self, data: bytes) -> None:
        await self.send(Data(stream_id=self.stream_id, data=data))

    async def _watch(self) -> None:
        """Deny the handshake if the application is late; after it, ping the client."""
        drips = False
        with self._beat:
            with trio.move_on_after(self._limits.accept_timeout + _AFTER_THE_APPLICATION):
                await self._answered.wait()
            if self._answered.is_set():
                drips = await self._heartbeat()
        if drips:
            timeout = self._limits.body_timeout
            await self._fail(POLICY_VIOLATION, f"expected a frame in {timeout:g} seconds and one for {SLOWEST} bytes")
        elif not self.closed and self.state is _HANDSHAKE:
            self._server_connection.served.count("not accepted")
            await self._deny(503)

    async def _heartbeat(self) -> bool:
        """Ping the client. Reset the connection if it is silent for ``PONG_TIMEOUT``; return if a frame only drips."""
        interval, pong = self._limits.ping_interval, self._limits.pong_timeout
        step = min(interval, pong)
        silent = slow = 0.0
        await trio.sleep(interval * random.uniform(0.5, 1))  # not all at once after a restart
        while True:
            # Any bytes are a sign of life. Time in which a slow application keeps the connection unread does not count.
            heard = self._server_connection.reads
            frame = self._limit.taken if self._limit.is_amid_frame else None
            await self._send_wsproto_event(Ping())
            await trio.sleep(step)
            quiet = self._server_connection.reads == heard and self._server_connection.listening
            silent = silent + step if quiet else 0.0
            if silent >= pong:
                self._server_connection.served.count("silent")
                self._server_connection.abort()
                return False
            await trio.sleep(interval - step)
            same = frame == self._limit.taken and self._limit.is_amid_frame and self._server_connection.listening
            slow = slow + interval if same else 0.0
            if slow >= self._limits.body_timeout + (self._limit.received - self._limit.taken) / SLOWEST:
                return True

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

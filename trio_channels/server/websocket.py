"""hypercorn's WebSocket, over HTTP/1.1 or HTTP/2, with its defects fixed. The numbers (D1...) are those of the docs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import trio
<<<<<<< HEAD
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
=======
import trio.lowlevel
from hypercorn.protocol.events import Body, Data, Event, Request, Response, StreamClosed
>>>>>>> main
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
<<<<<<< HEAD
from .frames import BINARY, TEXT, BoundedDeflate, MessageLimit, frame
from .handshake import Handshake, agree, scope_for
from .limits import SLOWEST, Rate
=======
from .frames import BINARY, TEXT, BoundedDeflate, MessageLimit, agree, between_messages, frame, whole_message
from .limits import Rate
>>>>>>> main
from .streams import begin, for_stream
from .tasks import ClientGone

if TYPE_CHECKING:
    from .connection import ServerConnection
    from .http1 import Http1

#: Seconds beyond ``ACCEPT_TIMEOUT``: an application of trio-channels denies by itself first, with a better reason.
_AFTER_THE_APPLICATION = 1.0

#: Seconds for a client to read the close frame of a shutdown.
_LAST_WORD = 2.0

#: Frames after which other tasks are let run: parts of a message and pongs cost the client nothing, and nobody waits.
_FRAMES_PER_TURN = 64

_PING = bytes((0x89, 0))

_HANDSHAKE, _CONNECTED = ASGIWebsocketState.HANDSHAKE, ASGIWebsocketState.CONNECTED

#: The handshake of every accepted WebSocket.
_ANSWERED: Any = SimpleNamespace(accepted=True)


class WebSocketStream(WSStream):
    """One WebSocket."""

    __slots__ = (
        *("_alone", "_between", "_deaf", "_deflate", "_frames", "_heard", "_limits", "_next", "_rate", "_read"),
        *("_server_connection", "_silent", "_why", "_write", "tick"),
    )

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
        self._deflate: BoundedDeflate | None = None
        self._deaf = False
        self._why: tuple[int, str] | None = None
        self.tick: int | None = None
        self._next: Callable[[], None] = self._late
        self._heard = 0
        self._silent = 0.0
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
        if await begin(self, self._server_connection, self._open(request), unknown):
            self._server_connection.served.websockets.add(self)
            self._server_connection.served.clock.set(self, self._limits.accept_timeout + _AFTER_THE_APPLICATION)
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
<<<<<<< HEAD
        if self._has_ended():
            return
        self._limit.received += len(data)
=======
        start = 0
        while self._between and not self._has_ended():
            found = whole_message(data, start, self._limits.max_message_size)
            if found is None:
                break
            message, start = found
            event: dict[str, Any]
            if isinstance(message, str):
                event = {"type": "websocket.receive", "bytes": None, "text": message}
            else:
                event = {"type": "websocket.receive", "bytes": message, "text": None}
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
>>>>>>> main
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
            await self._write(_frame_of(message))
        else:
            if message["type"] == "websocket.close":
                self._why = self._why or (int(message.get("code", NORMAL)), message.get("reason") or "")
            await super().app_send(message)

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
<<<<<<< HEAD
        extensions: list[Extension] = [self._limit, self._deflate]
        headers = list(message.get("headers", []))
        offered, self.handshake.extensions = self.handshake.extensions, None
        if self._limits.compression and offered and (agreed := agree(offered, self._deflate)):
            headers.append((b"sec-websocket-extensions", agreed))
            self._plain = False
=======
        limits = self._limits
        headers = list(message.get("headers", []))
        offered, self.handshake.extensions = self.handshake.extensions, None
        if limits.compression and offered:
            deflate = BoundedDeflate(limits.max_message_size)
            if agreed := agree(offered, deflate):
                headers.append((b"sec-websocket-extensions", agreed))
                self._deflate = deflate
>>>>>>> main
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
        self._next = self._ping
        # Not all at once after a restart.
        self._server_connection.served.clock.set(self, limits.ping_interval * random.uniform(0.5, 1))

    async def _send_wsproto_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except LocalProtocolError:
            return  # a close is under way
        await self._write(data)

    async def _write_event(self, data: bytes) -> None:
        await self.send(Data(stream_id=self.stream_id, data=data))

<<<<<<< HEAD
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
=======
    def on_time(self) -> None:
        """Deny the handshake if the application is late; after it, ping the client. Called by the server's clock."""
        self._next()

    def _late(self) -> None:
        self._server_connection.served.count("not accepted")
        self.task_group.spawn(self._deny, 503)

    def _ping(self) -> None:
        """Ping the client; later :meth:`_listen` looks whether anything came."""
        # Any bytes are a sign of life.
        self._heard = self._server_connection.reads
        self._next = self._listen
        self._server_connection.served.clock.set(self, self._pause)
        if self._alone:
            self._server_connection.write_soon(_PING)
        else:
            self.task_group.spawn(self._send_wsproto_event, Ping())

    @property
    def _pause(self) -> float:
        """Seconds between a ping and the look for an answer."""
        return min(self._limits.ping_interval, self._limits.pong_timeout)

    def _listen(self) -> None:
        """Reset the connection if no bytes have come for ``PONG_TIMEOUT`` seconds."""
        connection = self._server_connection
        # Time in which a slow application keeps the connection unread does not count, nor in which a ping waits.
        pinged = connection.can_write_now or connection.tls is not None
        quiet = connection.reads == self._heard and connection.listening and pinged
        self._silent = self._silent + self._pause if quiet else 0.0
        if self._silent >= self._limits.pong_timeout:
            connection.served.count("silent")
            connection.abort()
        elif (rest := self._limits.ping_interval - self._pause) > 0:
            self._next = self._ping
            connection.served.clock.set(self, rest)
        else:
            self._ping()
>>>>>>> main

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


def _frame_of(message: Any) -> bytes:
    data, text = message.get("bytes"), message.get("text")
    if data is not None:
        return frame(BINARY, bytes(data))
    if isinstance(text, str):
        return frame(TEXT, text.encode())
    raise TypeError(f"expected a str as the text of websocket.send, got {type(text).__name__}")

"""The incoming side of a WebSocket: frames become messages for the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import trio
import trio.lowlevel
from hypercorn.protocol.events import Data, Event, StreamClosed
from hypercorn.protocol.ws_stream import WebsocketBuffer
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import Extension
from wsproto.utilities import LocalProtocolError

from .._asgi.close_codes import POLICY_VIOLATION
from .._concurrency.queues import Inbox
from .._concurrency.rate import Rate
from .frames import (
    CLOSE,
    PING,
    PONG,
    BoundedDeflate,
    MessageLimit,
    amid_frame,
    between_messages,
    close_of,
    frame,
    whole_control,
    whole_message,
)
from .limits import SLOWEST, Pace
from .timing import TimedStream

if TYPE_CHECKING:
    from .connection import ServerConnection

#: Frames after which other tasks are let run: parts of a message and pongs cost the client nothing, and nobody waits.
_FRAMES_PER_TURN = 64


class WebSocketReader(TimedStream):
    """Reads one WebSocket; the subclass opens it, and has the application's side."""

    __slots__ = ("_between", "_deaf", "_deflate", "_frames", "_limit", "_pace", "_rate", "_read", "_why", "_write")

    app_put: Inbox | None
    buffer: WebsocketBuffer | None  # type: ignore[assignment]

    def __init__(
        self,
        server_connection: ServerConnection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        write: Callable[[bytes], Awaitable[None]] | None,
    ) -> None:
        super().__init__(server_connection, send, stream_id, alone=write is not None)
        self.buffer = None  # of the message that has come in part
        self._write = write or self._write_event
        self._deflate: BoundedDeflate | None = None
        self._deaf = False
        self._why: tuple[int, str] | None = None
        self._rate = Rate(self._limits.messages_per_second)
        self._read = 0  # frames
        self._frames: Frames | None = None
        self._limit: MessageLimit | None = None
        self._pace: Pace | None = None  # of a frame that has come in part
        self._between = True  # wsproto holds no part of a message

    @property
    def connection(self) -> Frames:  # type: ignore[override]
        """wsproto's side of the WebSocket; made when a frame first needs it."""
        if self._frames is None:
            self._limit = MessageLimit(self._limits.max_message_size)
            extensions: list[Extension] = [self._limit]
            if self._deflate is not None:
                extensions.append(self._deflate)
            self._frames = Frames(ConnectionType.SERVER, extensions)
        return self._frames

    async def receive_bytes(self, data: bytes) -> None:
        """Handle frames, or parts of frames. Cancellation: messages may be lost."""
        if self._pace is not None and self._pace.is_too_slow(len(data), self._limits.body_timeout):
            expected = f"{self._limits.body_timeout:g} seconds and one for {SLOWEST} bytes"
            await self._fail(POLICY_VIOLATION, f"expected a frame in {expected}")
            return
        start, end = 0, len(data)
        while start < end and self._between and not (self._deaf or self.closed):
            found = whole_message(data, start, self._limits.max_message_size)
            if found is not None:
                event, start = found
                if (waiting := self._deliver(event)) is not None:
                    await waiting
            elif self._frames is None and (control := whole_control(data, start)) is not None:
                opcode, payload, start = control
                await self._control(opcode, payload)
            else:
                break
        if start < end and not self._has_ended():
            await self._parse(data[start:] if start else data)
            self._between = between_messages(self.connection)
            self._set_pace()

    def _set_pace(self) -> None:
        """Time the frame that has come in part. Called before the rest of it is waited for."""
        frames = cast(MessageLimit, self._limit).frames
        if not amid_frame(self.connection):
            self._pace = None
        elif self._pace is None or self._pace.frame != frames:
            self._pace = Pace(frames)
        else:
            self._pace.go_on()

    def _deliver(self, event: dict[str, Any]) -> Awaitable[object] | None:
        """Pass a message on; returns an awaitable if there is no room for it, or it is refused, or it is time."""
        if self._rate.exceeded():
            return self._refuse_flood()
        if not self.app_put.offer(event):  # type: ignore[union-attr]
            return self.app_put(event)  # type: ignore[misc]
        self._read += 1
        return _let_others_run() if self._read % _FRAMES_PER_TURN == 0 else None

    async def _control(self, opcode: int, payload: bytes) -> None:
        """Handle a valid control frame. A pong needs nothing: each read is a sign of life."""
        self._read += 1
        if self._read % _FRAMES_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if opcode == CLOSE:
            await self._closed_by_client(close_of(payload), frame(CLOSE, payload))
        elif opcode == PING and self._rate.exceeded():
            await self._refuse_flood()
        elif opcode == PING:
            await self._write(frame(PONG, payload))

    async def _parse(self, data: bytes) -> None:
        """Have wsproto parse frames, or parts of frames."""
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._read += 1
            if self._read % _FRAMES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, Message):
                self.buffer = buffer = self.buffer or WebsocketBuffer(self._limits.max_message_size)
                buffer.extend(event)
                if event.message_finished:
                    self.buffer = None
                    if (waiting := self._deliver(buffer.to_message())) is not None:
                        await waiting
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
            limits = (self._limit, self._deflate)
            why = next((limit.why for limit in limits if limit is not None and limit.why), event.reason or "")
            await self._fail(int(event.code), why)
            return
        answer = self.connection.send(event.response()) if state is ConnectionState.REMOTE_CLOSING else b""
        await self._closed_by_client((int(event.code), event.reason or ""), answer)

    async def _closed_by_client(self, why: tuple[int, str] | None, answer: bytes) -> None:
        """Answer a close frame, after which the application sends nothing more."""
        self._deaf = True
        self._why = why
        if answer:
            await self._write(answer)
        # Not before: the disconnect may cancel an application that is writing, which resets the connection.
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

    async def _send_wsproto_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except LocalProtocolError:
            return  # a close is under way
        await self._write(data)

    async def _write_event(self, data: bytes) -> None:
        await self.send(Data(stream_id=self.stream_id, data=data))


async def _let_others_run() -> None:
    await trio.lowlevel.checkpoint()

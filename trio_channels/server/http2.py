"""hypercorn's HTTP/2, with its defects fixed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import h2.errors
import h2.events
import h2.exceptions
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.utils import filter_pseudo_headers
from priority.priority import DeadlockError, DuplicateStreamError, PriorityError

from .limits import LINGER, Waiting
from .streams import HttpStream, body_is_known, for_protocol
from .websocket import WebSocketStream

if TYPE_CHECKING:
    from .connection import ServerConnection

#: Streams that a client may reset on one connection, beyond half of its requests. A browser resets a handful. Each
#: reset costs the server an application instance (CVE-2023-44487, "rapid reset"); so does a stream that an invalid
#: frame makes the server reset (CVE-2025-8671, "made you reset").
_RESETS = 100

#: Bytes to parse between checkpoints: some hundred frames, or a part of a large one.
_AT_ONCE = 2048

#: Bytes of DATA frames in one write.
_WRITE_SIZE = 65_536


class Buffer(StreamBuffer):
    """D18: the data that a stream has to send, bounded. In hypercorn a closed window does not block the application."""

    def __init__(self, unread: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
        super().__init__(EventWrapper)
        self._unread = unread
        self.gone = trio.Event()  # all the data and the end of the stream have been sent

    async def add(self, data: bytes, end: bool) -> None:
        """Add data, and wait while the buffer is too full; with ``end``, add the end and wait until all is sent."""
        if end:
            self._append(data)
            self.set_complete()
            await self.drain()
        else:
            await self.push(data)

    async def push(self, data: bytes) -> None:
        """Add data, and wait while the buffer is too full. Cancellation: the data has been added."""
        self._append(data)
        if len(self.buffer) >= BUFFER_HIGH_WATER:
            if self._paused.is_set():  # otherwise another task waits already, and must not be forgotten
                await self._paused.clear()
            await self._unread(self._paused.wait)

    def _append(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        self._is_empty = EventWrapper()

    async def drain(self) -> None:
        """Wait until all the data has been sent. Cancellation: the data stays."""
        await self._unread(super().drain)

    async def pop(self, max_length: int) -> bytes:
        """Take at most ``max_length`` bytes. Cancellation: atomic."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Http2(H2Protocol):
    """One HTTP/2 connection."""

    stream_buffers: dict[int, Buffer]  # type: ignore[assignment]  # each stream here is in the priority tree, too

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(*for_protocol(server_connection))
        self._server_connection = server_connection
        self._uploading: set[int] = set()
        self._resets = 0
        self._unflushed = 0

    @property
    def waiting(self) -> Waiting:
        """The part of a request that the client has to send now."""
        if self._uploading:
            return Waiting.BODY
        if self.keep_alive_requests == 0:
            return Waiting.HEAD
        return Waiting.NOTHING if self.streams else Waiting.REQUEST

    @property
    def unanswered(self) -> bool:
        """Whether a stream is open; ``refuse`` answers it with GOAWAY."""
        return bool(self.streams)

    async def refuse(self, status: int) -> None:
        """Send GOAWAY. Cancellation: may be sent in part."""
        await self.farewell(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    async def handle(self, event: Event) -> None:
        """As hypercorn's, in small parts with checkpoints between: one read may hold thousands of empty frames."""
        if not isinstance(event, RawData):
            await super().handle(event)
            for stream_id in list(self.stream_buffers):
                await self._forget_buffer(stream_id)
            return
        for start in range(0, len(event.data), _AT_ONCE):
            if self.closed:
                return
            await super().handle(RawData(event.data[start : start + _AT_ONCE]))
            if len(event.data) > _AT_ONCE:
                await trio.lowlevel.checkpoint()

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        """As hypercorn's, one event at a time, without the events that make it fail."""
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                # D1 (hypercorn issue 329): data after an early response only counts for flow control.
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.RequestReceived):
                if event.stream_ended is None:
                    self._uploading.add(event.stream_id)
                await super()._handle_events([event])
            else:
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    self._uploading.discard(event.stream_id)
                if isinstance(event, h2.events.StreamReset) and self._too_many_resets():
                    await self.refuse(0)
                    await self.send(Closed())
                    return
                await super()._handle_events([event])
                if isinstance(event, h2.events.StreamReset):
                    await self._forget_buffer(event.stream_id)
        await self._flush()

    async def _forget_buffer(self, stream_id: int) -> None:
        """D18: wake an application that waits for the window of a stream that has been reset."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None:
            return
        await buffer.close()
        self.priority.unblock(stream_id)  # send_task removes it from here and from the tree
        await self.has_data.set()

    def _too_many_resets(self) -> bool:
        self._resets += 1
        return self._resets > _RESETS + self.keep_alive_requests // 2

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """D1: a request whose method or path is missing or not ASCII is answered with 400."""
        fields = dict(request.headers or ())
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        if not (method and path and method.isascii() and path.isascii()):
            await self._refuse_stream(request.stream_id, 400)
        elif method == b"CONNECT" and fields.get(b":protocol") != b"websocket":
            await self._refuse_stream(request.stream_id, 501)
        elif self._insert(request.stream_id):
            await self._start(request, method.decode().upper(), path)
        else:
            await self._refuse_stream(request.stream_id, 503)

    def _insert(self, stream_id: int) -> bool:
        """D1: returns False if PRIORITY frames have filled the priority tree."""
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:
            return True  # a PRIORITY frame came before
        except PriorityError:
            return False
        self.priority.block(stream_id)
        return True

    async def _start(self, request: h2.events.RequestReceived, method: str, path: bytes) -> None:
        stream_id = request.stream_id
        stream: HttpStream | WebSocketStream
        if method == "CONNECT":
            self._uploading.discard(stream_id)
            stream = WebSocketStream(self._server_connection, self.stream_send, stream_id)
        else:
            stream = HttpStream(self._server_connection, self, stream_id)
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = Buffer(self._server_connection.unread)
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method=method,
                raw_path=path,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _refuse_stream(self, stream_id: int, status: int) -> None:
        self._uploading.discard(stream_id)
        self.keep_alive_requests += 1
        try:
            self.connection.send_headers(stream_id, [(b":status", b"%d" % status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            return
        await self._flush()

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """D1: priorities are advisory: ignore one that the tree refuses."""
        try:
            await super()._priority_updated(event)
        except PriorityError:
            pass

    async def send_task(self) -> None:
        """Send the buffered data of streams, in the order of their priorities, many frames in one write."""
        while not self.closed:
            try:
                stream_id = next(self.priority)
            except DeadlockError:
                await self._flush()
                if self.has_data.is_set():
                    await self.has_data.clear()
                else:
                    await self.has_data.wait()
            else:
                await self._send_data(stream_id)

    async def _send_data(self, stream_id: int) -> None:
        """Add one DATA frame to the next write; the last one carries END_STREAM."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None:  # D1: a PRIORITY frame has put an ended stream into the tree again
            self.priority.block(stream_id)
            return
        try:
            window = self.connection.local_flow_control_window(stream_id)
            data = await buffer.pop(max(0, min(window, self.connection.max_outbound_frame_size)))
            ended = buffer.complete
            if data or ended:
                self.connection.send_data(stream_id, data, end_stream=ended)
                self._unflushed += len(data)
            else:
                self.priority.block(stream_id)
        except (KeyError, h2.exceptions.ProtocolError):  # the stream or connection was closed meanwhile
            await buffer.close()
            ended = True
        if ended or self._unflushed >= _WRITE_SIZE:
            await self._flush()
        if ended:
            self.stream_buffers.pop(stream_id, None)
            self.priority.remove_stream(stream_id)
            buffer.gone.set()

    async def _flush(self) -> None:
        self._unflushed = 0
        if data := self.connection.data_to_send():
            await self._server_connection.write(data)

    async def stream_send(self, event: StreamEvent) -> None:
        """As hypercorn's, but the head of a response whose length is known waits for the body."""
        if isinstance(event, Response):
            await self._send_head(event)
        elif isinstance(event, Body | Data | EndBody | EndData):
            data = event.data if isinstance(event, Body | Data) else b""
            await self.send_body(event.stream_id, data, isinstance(event, EndBody | EndData))
        else:
            if isinstance(event, StreamClosed):
                self._uploading.discard(event.stream_id)
                await self._finish(event.stream_id)
                await self._flush()
            await super().stream_send(event)

    async def _send_head(self, response: Response) -> None:
        headers = [*response.headers, *self.config.response_headers("h2")]
        try:
            self.connection.send_headers(response.stream_id, [(b":status", b"%d" % response.status_code), *headers])
        except h2.exceptions.ProtocolError:
            return  # the stream or connection was closed meanwhile
        stream = self.streams.get(response.stream_id)
        if stream is None or not body_is_known(stream.scope, response.status_code, headers):
            await self._flush()

    async def send_body(self, stream_id: int, data: bytes, end: bool) -> None:
        """Buffer a part of a body, and with ``end`` its end. D3: a client that opens no window in time is cut."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None:
            return  # the stream has ended
        with trio.move_on_after(self._server_connection.limits.write_timeout) as waited:
            self.priority.unblock(stream_id)
            await self.has_data.set()
            try:
                await buffer.add(data, end)
            except BufferCompleteError:
                return  # the stream has ended
        if waited.cancelled_caught:
            await self._reset(stream_id)

    async def _finish(self, stream_id: int) -> None:
        """Send the buffered data and the end of a stream before it is closed."""
        # hypercorn leaves the stream of a WebSocket half open, and its GOAWAY may overtake buffered data.
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or stream_id not in self.streams or self.closed:
            return
        buffer.set_complete()
        self.priority.unblock(stream_id)
        await self.has_data.set()
        with trio.move_on_after(LINGER):
            await buffer.gone.wait()

    async def farewell(self, why: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """Send GOAWAY: no more requests are accepted. Cancellation: may be sent in part."""
        self.connection.close_connection(why)
        await self._flush()

    async def _reset(self, stream_id: int) -> None:
        self._server_connection.served.count("slow")
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            pass  # the connection is closed: the application must know all the same
        await self._flush()
        await self._close_stream(stream_id)
        await self._forget_buffer(stream_id)

"""The sending side of one HTTP/2 connection: the data that streams have to send, and the task that sends it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from time import time
from typing import TYPE_CHECKING

import h2.errors
import h2.exceptions
import trio
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.trio.worker_context import EventWrapper
from priority.priority import DeadlockError

from ..limits import LINGER, SLOWEST
from ..streams import body_is_known, for_protocol
from .floods import SENT, FrameCounter

if TYPE_CHECKING:
    from ..connection import ServerConnection

#: Bytes of DATA frames in one write.
_WRITE_SIZE = 65_536

#: Bytes from which a part of a body is kept as it is. Smaller parts are put together: an object each would cost more.
_LARGE = 4_096


class Buffer(StreamBuffer):
    """D18: the data that a stream has to send, bounded. In hypercorn a closed window does not block the application.

    A large part of a body is not copied: the application has it, too, until it has been sent.
    """

    def __init__(self, unread: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
        super().__init__(EventWrapper)
        self._unread = unread
        self._parts: deque[bytes | bytearray] = deque()
        self._sent = 0  # bytes of the first part that have been sent
        self._size = 0
        self.gone = trio.Event()  # all the data and the end of the stream have been sent

    def __len__(self) -> int:
        return self._size

    @property
    def complete(self) -> bool:
        """Whether all has been taken, and no more will come."""
        return self._complete and not self._size

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
        if self._size >= BUFFER_HIGH_WATER:
            if self._paused.is_set():  # otherwise another task waits already, and must not be forgotten
                await self._paused.clear()
            await self._unread(self._paused.wait)

    def _append(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self._size += len(data)
        if len(data) >= _LARGE:
            self._parts.append(data)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1].extend(data)
        elif data:
            self._parts.append(bytearray(data))
        self._is_empty = EventWrapper()

    async def drain(self) -> None:
        """Wait until all the data has been sent. Cancellation: the data stays."""
        await self._unread(super().drain)

    async def pop(self, max_length: int) -> bytes:
        """Take at most ``max_length`` bytes. Cancellation: atomic."""
        taken: list[bytes | bytearray] = []
        while max_length and self._parts:
            part = self._parts[0][self._sent : self._sent + max_length]
            taken.append(part)
            max_length -= len(part)
            self._size -= len(part)
            self._sent += len(part)
            if self._sent == len(self._parts[0]):
                self._parts.popleft()
                self._sent = 0
        if self._size < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self._size:
            await self._is_empty.set()
        return b"".join(taken)

    async def close(self) -> None:
        """Drop the data, and wake every task that waits. Cancellation: atomic."""
        self._parts.clear()
        self._size = self._sent = 0
        await super().close()


class _Signal(EventWrapper):
    """hypercorn's event, whose ``set`` is async without need."""

    def wake(self) -> None:
        self._event.set()


class Sender(H2Protocol):
    """hypercorn's HTTP/2 protocol, with a sending side of its own."""

    has_data: _Signal

    stream_buffers: dict[int, Buffer]  # type: ignore[assignment]  # each stream here is in the priority tree, too

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(*for_protocol(server_connection))
        self._server_connection = server_connection
        self._counter = FrameCounter(self.connection.max_inbound_frame_size)
        self.has_data = _Signal()
        self._unflushed = 0

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
        buffer = self.stream_buffers[stream_id]
        try:
            window = self.connection.local_flow_control_window(stream_id)
            data = await buffer.pop(max(0, min(window, self.connection.max_outbound_frame_size)))
            ended = buffer.complete
            if data or ended:
                self.connection.send_data(stream_id, data, end_stream=ended)
                self._unflushed += len(data)
                if len(data) >= _LARGE or not len(buffer):  # not for a byte because the window is a byte wide
                    self._counter.earn(SENT)
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

    def _wake_sender(self) -> None:
        """Have the sending task write the frames that wait."""
        self.has_data.wake()

    async def _flush(self) -> None:
        self._unflushed = 0
        if data := self.connection.data_to_send():
            await self._server_connection.write(data)

    async def send_head(self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head of a response; one whose length is known waits for the body."""
        headers = [*headers, *self._server_connection.served.headers("h2", int(time()))]
        try:
            self.connection.send_headers(stream_id, [(b":status", b"%d" % status), *headers])
        except h2.exceptions.ProtocolError:
            return  # the stream or connection was closed meanwhile
        stream = self.streams.get(stream_id)
        if stream is None or not body_is_known(stream.scope, status, headers):
            await self._flush()

    async def send_body(self, stream_id: int, data: bytes, end: bool) -> None:
        """Buffer a part of a body, and with ``end`` its end. D3: a client that opens no window in time is cut."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None:
            return  # the stream has ended
        seconds = self._server_connection.limits.write_timeout + len(data) / SLOWEST / 100
        with trio.move_on_after(seconds) as waited:
            self.priority.unblock(stream_id)
            await self.has_data.set()
            try:
                await buffer.add(data, end)
            except BufferCompleteError:
                return  # the stream has ended
        if waited.cancelled_caught:
            await self._reset(stream_id)

    async def send_parts(self, stream_id: int, parts: list[bytes], renew: Callable[[], object]) -> None:
        """Buffer parts of a body, each as :meth:`send_body`; `renew` is called before each."""
        for part in parts:
            renew()
            await self.send_body(stream_id, part, False)

    async def _reset(self, stream_id: int) -> None:
        """Reset a stream whose client does not read it."""
        self._server_connection.served.count("slow")
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            pass  # the connection is closed: the application must know all the same
        await self._flush()
        await self._close_stream(stream_id)
        await self._forget_buffer(stream_id)

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

    async def _forget_buffer(self, stream_id: int) -> None:
        """D18: wake an application that waits for the window of a stream that has been reset."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None:
            return
        await buffer.close()
        self.priority.unblock(stream_id)  # send_task removes it from here and from the tree
        await self.has_data.set()

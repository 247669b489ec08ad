"""One HTTP/2 connection: the frames and events from the client."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import h2.errors
import h2.events
import h2.exceptions
import trio
from h2.settings import SettingCodes
from hpack import HPACKError
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.utils import filter_pseudo_headers

from ..limits import LINGER, Waiting
from ..refusals import refused
from .draining import Draining
from .floods import CHANGE, REQUEST, RESET
from .sending import Buffer
from .streams import FedWebSocketStream, RequestStream
from .uploads import CONNECTION_WINDOW, MOST_DROPPED, WIDE_STREAMS, WINDOW, Inflow

if TYPE_CHECKING:
    from ..connection import ServerConnection


class Http2(Draining):
    """One HTTP/2 connection."""

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(server_connection)
        self._inflows: dict[int, Inflow] = {}
        self._wide_streams = 0
        self._unacknowledged = 0
        self._dropped: Counter[int] = Counter()  # bytes of bodies that came after the answer

    async def initiate(self, headers: object = None, settings: object = None) -> None:
        """Send the server's settings, and start the sending task. Cancellation: may be sent in part."""
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(CONNECTION_WINDOW - WINDOW)
        await self._flush()
        self.task_group.spawn(self.send_task)

    @property
    def waiting(self) -> Waiting:
        """The part of a request that the client has to send now."""
        if any(inflow.body and inflow.starved for inflow in self._inflows.values()):
            return Waiting.BODY
        if self.keep_alive_requests == 0:
            return Waiting.HEAD
        return Waiting.NOTHING if self.streams else Waiting.REQUEST

    async def refuse(self, status: int) -> None:
        """Send GOAWAY; to a client that only was idle without an error. Cancellation: may be sent in part."""
        if self.waiting is Waiting.REQUEST:
            await self.farewell()
        else:
            await self._cut(status, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    async def _cut(self, status: int, code: h2.errors.ErrorCodes) -> None:
        """Log a status that says why, and send GOAWAY."""
        await refused(self._server_connection, status, {"http_version": "2"})
        await self.farewell(code)

    # -- frames -------------------------------------------------------------------------------------------------------

    async def handle(self, event: Event) -> None:
        """As hypercorn's, for the end of the connection."""
        self._noticed.set()
        await super().handle(event)
        for stream_id in list(self.stream_buffers):
            await self._forget_buffer(stream_id)

    async def receive_bytes(self, data: bytes) -> None:
        """Handle bytes in turns with checkpoints between: one read may hold thousands of empty frames."""
        start = 0
        while start < len(data) and not self.closed:
            try:
                end = self._counter.turn(data, start)
                events = self.connection.receive_data(data[start:end])
            except h2.exceptions.ProtocolError as error:
                await self._end_for(error)
            else:
                start = end
                await self._handle_events(events)
                if self._counter.exhausted:
                    self._server_connection.served.count("flood")
                    await self._cut(429, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    await self.send(Closed())
                elif start < len(data):
                    await trio.lowlevel.checkpoint()

    async def _end_for(self, error: h2.exceptions.ProtocolError) -> None:
        """End the connection with the error's code, which h2 does not know for errors of HPACK."""
        status, code = 400, error.error_code
        if isinstance(error.__cause__, HPACKError) and code == h2.errors.ErrorCodes.PROTOCOL_ERROR:
            code = h2.errors.ErrorCodes.COMPRESSION_ERROR
        elif isinstance(error, h2.exceptions.DenialOfServiceError):
            status = 431  # h2 raises it for fields that are too long
        self._server_connection.served.count("bad input")
        self.connection.clear_outbound_data_buffer()  # h2's GOAWAY
        await self._cut(status, h2.errors.ErrorCodes(code))
        await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self._receive_body(event)
            elif isinstance(event, h2.events.RequestReceived):
                await self._receive_request(event)
            elif isinstance(event, h2.events.StreamEnded):
                self._dropped.pop(event.stream_id, None)
                if (inflow := self._inflows.get(event.stream_id)) is not None:
                    inflow.end()
            elif isinstance(event, h2.events.StreamReset):
                self._dropped.pop(event.stream_id, None)
                self._counter.spend(RESET)
                await self._end_reset_stream(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                await self._window_updated(event.stream_id)
            elif isinstance(event, h2.events.PriorityUpdated):
                self._reprioritize(event)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                self._counter.spend(CHANGE)
                if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    await self._window_updated(None)
            elif isinstance(event, h2.events.PingAckReceived):
                self._note_pong(event.ping_data)
            elif isinstance(event, h2.events.ConnectionTerminated):
                await self.send(Closed())
        await self._flush()

    def _reprioritize(self, event: h2.events.PriorityUpdated) -> None:
        """Note a priority. RFC 9113 has abolished them: those of streams that are not open are ignored."""
        known = self.stream_buffers
        if event.stream_id in known:
            above = event.depends_on if event.depends_on in known else None
            self.priority.reprioritize(event.stream_id, above, event.weight or 16, bool(event.exclusive))

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _receive_request(self, request: h2.events.RequestReceived) -> None:
        if request.stream_id > self._last_stream:
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            await self._log_refusal(request, 503)
            return
        if request.stream_ended is not None and _announces_body(request):  # h2 looks only at bodies that come
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            await self._log_refusal(request, 400)
            return
        self._counter.earn(REQUEST)
        self.keep_alive_requests += 1
        await self._create_stream(request)
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            self.drain()

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """D1: a request whose method or path is missing or not ASCII is answered with 400."""
        fields = dict(request.headers or ())
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        if not (method and path and method.isascii() and path.isascii()):
            await self._refuse_stream(request, 400)
        elif method == b"CONNECT" and fields.get(b":protocol", b"").lower() != b"websocket":
            await self._refuse_stream(request, 501)  # proxies pass on the client's spelling, "WebSocket"
        else:
            await self._start(request, method.decode().upper(), path)

    async def _start(self, request: h2.events.RequestReceived, method: str, path: bytes) -> None:
        stream_id = request.stream_id
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        self.stream_buffers[stream_id] = Buffer(self._server_connection.unread)
        inflow = self._inflows[stream_id] = Inflow(self._may_widen, body=method != "CONNECT")
        if request.stream_ended is not None:
            inflow.end()
        stream: RequestStream | FedWebSocketStream
        if method == "CONNECT":
            stream = FedWebSocketStream(self._server_connection, self, stream_id, inflow)
        else:
            stream = RequestStream(self._server_connection, self, stream_id, inflow)
        self.streams[stream_id] = stream
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
        if isinstance(stream, FedWebSocketStream):
            self.task_group.spawn(stream.feed)
        await self.context.mark_request()

    async def _end_reset_stream(self, stream_id: int) -> None:
        await self._forget_buffer(stream_id)
        stream = self.streams.get(stream_id)
        if isinstance(stream, FedWebSocketStream) and not stream.is_fed:
            self.task_group.spawn(self._close_settled, stream)
        else:
            await self._close_stream(stream_id)

    async def _close_settled(self, stream: FedWebSocketStream) -> None:
        await stream.settle()
        await self._close_stream(stream.stream_id)

    async def settle(self) -> None:
        """Have the WebSockets handle the bytes that came before the client's end. Cancellation: they may be lost."""
        with trio.move_on_after(LINGER):
            for stream in list(self.streams.values()):
                if isinstance(stream, FedWebSocketStream):
                    await stream.settle()

    async def _refuse_stream(self, request: h2.events.RequestReceived, status: int) -> None:
        await self._log_refusal(request, status)
        try:
            self.connection.send_headers(request.stream_id, [(b":status", b"%d" % status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            return
        await self._flush()

    async def _log_refusal(self, request: h2.events.RequestReceived, status: int) -> None:
        fields = dict(request.headers or ())
        known = {
            "http_version": "2",
            "method": fields.get(b":method", b"-").decode("latin-1"),
            "path": fields.get(b":path", b"-").decode("latin-1"),
            "headers": request.headers,
        }
        await refused(self._server_connection, status, known)

    async def stream_send(self, event: StreamEvent) -> None:
        """As hypercorn's, but the head of a response whose length is known waits for the body."""
        if isinstance(event, Response):
            await self.send_head(event.stream_id, event.status_code, event.headers)
        elif isinstance(event, Body | Data | EndBody | EndData):
            data = event.data if isinstance(event, Body | Data) else b""
            await self.send_body(event.stream_id, data, isinstance(event, EndBody | EndData))
        elif isinstance(event, StreamClosed):
            await self.end_stream(event.stream_id)
        else:
            await super().stream_send(event)

    async def end_stream(self, stream_id: int) -> None:
        """End a stream, after what is buffered. Cancellation: its application has been told."""
        await self._finish(stream_id)
        await self._flush()
        await self._close_stream(stream_id)
        await self.send(Updated(idle=self.idle))

    async def _close_stream(self, stream_id: int) -> None:
        """Send the application its disconnect, unless that was done. Cancellation: it has been sent."""
        inflow = self._inflows.pop(stream_id, None)
        if inflow is not None:
            self._wide_streams -= inflow.wide
            inflow.cut()
        try:
            await super()._close_stream(stream_id)
        finally:
            self._fewer_streams.unpark_all()

    # -- request bodies -----------------------------------------------------------------------------------------------

    def _receive_body(self, event: h2.events.DataReceived) -> None:
        if event.data or event.stream_ended is not None:
            self._counter.earn(1)
        size, held = event.flow_controlled_length or 0, len(event.data or b"")
        inflow = self._inflows.get(event.stream_id)
        if inflow is None:
            self._drop(event.stream_id, size, ended=event.stream_ended is not None)
            return
        inflow.add(event.data or b"")
        self._unacknowledged += size
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self.connection.increment_flow_control_window(self._unacknowledged)
            self._unacknowledged = 0
        if size > held:  # padding
            self.taken(event.stream_id, inflow, size - held)

    def _drop(self, stream_id: int, size: int, *, ended: bool) -> None:
        """D1 (hypercorn issue 329): data after an early response only counts for flow control."""
        self.connection.acknowledge_received_data(size, stream_id)
        if ended:
            return
        self._dropped[stream_id] += size
        if self._dropped[stream_id] > MOST_DROPPED:
            del self._dropped[stream_id]
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    def taken(self, stream_id: int, inflow: Inflow, size: int) -> None:
        """Open the window of a stream whose application has taken bytes."""
        increment = inflow.opens_by(size)
        if increment:
            try:
                self.connection.increment_flow_control_window(increment, stream_id)
            except (KeyError, h2.exceptions.ProtocolError):
                return  # the stream or connection was closed meanwhile
            self._wake_sender()
        if inflow.body and inflow.starved:
            self._server_connection.expect_again()

    def _may_widen(self) -> bool:
        wide = self._wide_streams < WIDE_STREAMS
        self._wide_streams += wide
        return wide

    def invite(self, stream_id: int) -> None:
        """Answer ``Expect: 100-continue``: the application waits for the body."""
        try:
            self.connection.send_headers(stream_id, [(b":status", b"100")])
        except h2.exceptions.ProtocolError:
            return  # the stream or connection was closed meanwhile
        self._wake_sender()


def _announces_body(request: h2.events.RequestReceived) -> bool:
    return any(name == b"content-length" and int(value) for name, value in request.headers or ())

"""hypercorn's HTTP/1.1, with its defects fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.typing import H11SendableEvent

from .._asgi.protocol import NO_BODY
from .handshake import switching_protocols
from .limits import Waiting
from .plain import Exchange, Several, plain_request
from .refusals import refused
from .request_head import RequestHead, check, empty_lines
from .streams import HttpStream, body_is_known, for_protocol
from .websocket import WebSocketStream

if TYPE_CHECKING:
    from .connection import ServerConnection


#: Bytes of a chunked body that may come for each byte of its content: one-byte chunks have six. Beyond that,
#: :data:`_MOST_OVERHEAD`, for chunk extensions. Nobody counts those against the limits of a body.
_OVERHEAD = 8
_MOST_OVERHEAD = 2**16


#: The state of every connection that has become a WebSocket: after the handshake's answer nothing is left for h11.
_UPGRADED = H11WSConnection(h11.Connection(h11.SERVER))


class Http1(H11Protocol):
    """One HTTP/1.1 connection."""

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(*for_protocol(server_connection))
        del self.can_read  # an event for each connection, of which few need one
        self._answered: trio.Event | None = None  # set when the next request may begin
        self._server_connection = server_connection
        self._held_head = b""
        self._exchange: Exchange | None = None  # one that h11 does not see
        self._longest_plain = 0 if self.config.h11_pass_raw_headers else self.config.h11_max_incomplete_size
        self._overhead = 0  # bytes of a request that are not its body

    @property
    def waiting(self) -> Waiting:
        """The part of a request that the client has to send now."""
        if isinstance(self.connection, H11WSConnection):
            return Waiting.NOTHING
        if self.stream is None:
            started = self.keep_alive_requests == 0 or self.connection.trailing_data[0]
            return Waiting.HEAD if started else Waiting.REQUEST
        return Waiting.BODY if self.uploading else Waiting.NOTHING

    @property
    def uploading(self) -> bool:
        """Whether the client sends a body."""
        if self._exchange is not None:
            return self._exchange.remaining > 0
        sends = self.connection.their_state is h11.SEND_BODY
        return sends and not self.connection.they_are_waiting_for_100_continue

    @property
    def unanswered(self) -> bool:
        """Whether a request has begun and no response to it has."""
        if isinstance(self.connection, H11WSConnection):
            return False
        if self._exchange is not None:
            return not self._exchange.held
        begun = self.connection.their_state is not h11.IDLE or bool(self.connection.trailing_data[0])
        return begun and self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def forget_handshake(self) -> None:
        """Free the state of the handshake, which is over."""
        self._exchange = None
        self.connection = _UPGRADED

    async def refuse(self, status: int) -> None:
        """Respond to the current request with an error, if it is unanswered. Cancellation: may be sent in part."""
        if self.unanswered:
            await self._turn_down(status)

    async def stream_send(self, event: Event) -> None:
        """Send an event of a request or WebSocket. Cancellation: may be sent in part."""
        if isinstance(event, StreamClosed):
            await self.end_stream(STREAM_ID)
        elif isinstance(event, Response) and event.status_code >= 200:
            await self.send_head(STREAM_ID, event.status_code, event.headers)
        elif isinstance(event, Body | EndBody):
            await self.send_body(STREAM_ID, getattr(event, "data", b""), isinstance(event, EndBody))
        elif isinstance(event, Response):
            headers = [*event.headers, *self._server_connection.served.headers("h11", int(time()))]
            await self._server_connection.deliver(switching_protocols(headers))
        else:
            await super().stream_send(event)

    async def send_head(self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Hold a head until the body follows if its length is known; a streamed response sends it at once."""
        headers = [*headers, *self._server_connection.served.headers("h11", int(time()))]
        last = self.keep_alive_requests >= self.config.keep_alive_max_requests
        upgrades = isinstance(self.connection, H11WSConnection)  # and is denied: the connection ends
        if self._exchange is not None and not last and not upgrades and self._exchange.begin(status, headers):
            return
        self._tell_h11()
        # RFC 9110, section 10.1.1: the client may send the body that it has announced, or may not.
        unasked = self.connection.they_are_waiting_for_100_continue
        if unasked or last:
            headers.append((b"connection", b"close"))
        self._held_head = self.connection.send(h11.Response(headers=headers, status_code=status))
        if self.stream is None or not body_is_known(self.stream.scope, status, headers):
            await self.flush()

    async def send_body(self, stream_id: int, data: bytes, end: bool) -> None:
        """Send a part of a response's body, and its end, in one write with the head that was held."""
        if self._exchange is not None:
            if end and (response := self._exchange.end(data)) is not None:
                try:  # as deliver(), with one coroutine less
                    await self._server_connection.write(response)
                except BaseException:
                    self._server_connection.abort()
                    raise
                return
            self._tell_h11()
        parts, self._held_head = [self._held_head] if self._held_head else [], b""
        try:
            if data:
                parts.append(self.connection.send(h11.Data(data=data)))
            if end and (last := self.connection.send(h11.EndOfMessage())):
                parts.append(last)
        finally:
            if parts:
                await self._server_connection.deliver(b"".join(parts))  # one part alone is not copied

    async def send_parts(self, stream_id: int, parts: list[bytes], renew: Callable[[], object]) -> None:
        """Send parts of a response's body, and not its end. Cancellation: they may be sent in part."""
        self._tell_h11()
        several: Any = Several(parts)
        # If this fails, the head stays held, and is sent at the end.
        pieces: list[Any] = cast(h11.Connection, self.connection).send_with_data_passthrough(h11.Data(several)) or []
        held, self._held_head = [self._held_head] if self._held_head else [], b""
        at = pieces.index(several)  # between the bytes of a chunk
        await self._server_connection.write_parts([*held, *pieces[:at], *parts, *pieces[at + 1 :]], renew)

    async def flush(self) -> None:
        """Send a head that is still held. Cancellation: may be sent in part."""
        if self._exchange is not None and not self._exchange.complete:
            self._tell_h11()
        if self._held_head:
            head, self._held_head = self._held_head, b""
            await self._server_connection.deliver(head)

    def _tell_h11(self) -> None:
        """Have h11 go on with an exchange that it has not seen."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            h11s = self.connection.h11_connection if isinstance(self.connection, H11WSConnection) else self.connection
            self._held_head = exchange.tell(h11s)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if data := self.connection.send(event):
            await self._server_connection.deliver(data)

    async def end_stream(self, stream_id: int) -> None:
        """End the stream; begin to wait for the next request, or to close the connection."""
        if self._held_head or (self._exchange is not None and not self._exchange.complete):
            await self.flush()
        stream = cast(HttpStream | WebSocketStream | None, self.stream)
        if stream is not None and stream.state is ASGIHTTPState.CLOSED:  # it has been answered, and logged
            stream.hang_up()
            self.stream = None
        else:
            await self._close_stream()
        h11s = self.connection
        plain, self._exchange = self._exchange is not None, None
        complete = plain or (h11s.our_state is h11.DONE and h11s.their_state is h11.DONE)
        if self._answered is not None:
            self._answered.set()
        if complete and not self.context.terminated.is_set():
            if not plain:
                h11s.start_next_cycle()
            self._server_connection.expect_anew()
        else:  # also where the server shuts down
            await self.send(Closed())

    async def receive_bytes(self, data: bytes) -> None:
        """Handle bytes; those behind a client's last request are dropped (RFC 9112, section 9.6)."""
        idle = self.connection.their_state is h11.IDLE and self.stream is None
        if idle and not self.connection.trailing_data[0]:
            found = plain_request(data, self._longest_plain)
            if found is not None:
                self._exchange, head, data = found
                await self._start(head)
                if head.has_body:
                    await self._receive_plain_body(data)
                return
        elif self._exchange is not None and self._exchange.remaining:
            await self._receive_plain_body(data)
            return
        self._tell_h11()
        if self.connection.their_state is not h11.MUST_CLOSE:
            self._overhead += len(data)
            self.connection.receive_data(data)
            await self._handle_events()
            if self._overhead > _MOST_OVERHEAD and self.uploading:
                await self._reject(h11.RemoteProtocolError("expected a body, got little but chunk headers"))
        elif self.stream is not None:  # pragma: no branch - otherwise the connection is about to be closed
            await self._pause()

    async def _receive_plain_body(self, data: bytes) -> None:
        """Pass on a part of the body of a plain request."""
        exchange, stream = self._exchange, cast(HttpStream | None, self.stream)
        if exchange is None or stream is None or stream.closed:
            return  # it has been refused
        part, rest = data[: exchange.remaining], data[exchange.remaining :]
        exchange.remaining -= len(part)
        if part or not exchange.remaining:
            await stream.receive(part, more=exchange.remaining > 0)
        if rest and not self._server_connection.is_closing:  # the server may have shut down meanwhile
            await self.receive_bytes(rest)

    async def _pause(self) -> None:
        """Wait for the end of the response: a client that sends more than the server needs is not read."""
        self._answered = trio.Event()
        await self._server_connection.unread(self._answered.wait)

    async def _handle_events(self) -> None:
        """As hypercorn's, for a client that may send anything."""
        while self._may_go_on():
            request = None
            try:
                event = self.connection.next_event()
                if isinstance(event, h11.Request):
                    request = event
                    await self._begin(event)
                    continue
            except h11.RemoteProtocolError as error:
                await self._reject(error, request)
                return
            if event is h11.PAUSED:
                await self._pause()
            elif event is h11.NEED_DATA or self.stream is None:
                return
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            elif isinstance(event, h11.Data):
                self._overhead = max(0, self._overhead - len(event.data) * _OVERHEAD)
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            else:  # bytes for a WebSocket that has not been accepted
                await self.stream.handle(cast(Data, event))

    def _may_go_on(self) -> bool:
        """Whether there may be an event. Empty lines before a request are skipped."""
        state, waiting = self.connection.their_state, self.connection.trailing_data[0]
        if state is h11.DONE:
            return bool(waiting)
        if state is not h11.IDLE:
            return state is not h11.MUST_CLOSE
        if waiting.startswith((b"\r", b"\n")) and (skipped := empty_lines(waiting)):
            waiting = waiting[skipped:]
            self.connection = _parser(self.config)
            if waiting:  # h11 takes b"" for the client's end
                self.connection.receive_data(waiting)
        return waiting != b"\r"  # half an empty line

    async def _reject(self, error: h11.RemoteProtocolError, request: h11.Request | None = None) -> None:
        """Answer an invalid request, unless its answer has begun, and close the connection."""
        self._server_connection.report(error)
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._turn_down(error.error_status_hint, request)
        await self.send(Closed())

    async def _turn_down(self, status: int, request: h11.Request | None = None) -> None:
        stream = cast(HttpStream | WebSocketStream | None, self.stream)
        self._tell_h11()
        known = None if request is None else _known(request)
        if stream is not None:
            known = cast(Any, stream.scope)
            stream.hang_up()  # or the application would answer as well
        await self._send_error_response(status)
        await refused(self._server_connection, status, known)

    async def _begin(self, request: h11.Request) -> None:
        """Start the stream of a request. D19: without the ``h2c`` upgrade, which RFC 9113 has removed from HTTP/2."""
        # Behind a proxy that forwards Upgrade for WebSockets, an upgraded client would bypass the proxy's rules, and
        # could forge forwarding headers. So would one that goes over to HTTP/2 after a request.
        first = self.keep_alive_requests == 0
        if first and request.method == b"PRI" and request.target == b"*" and request.http_version == b"2.0":
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])
        head = check(request, self.config)
        if request.method == b"CONNECT":
            raise h11.RemoteProtocolError("expected no CONNECT: tunnels are not supported", error_status_hint=501)
        await self._start(head)

    async def _start(self, head: RequestHead) -> None:
        plain = self._exchange is not None  # until the application answers
        self.stream = stream = self._stream_for(head)
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=head.headers,
                http_version=head.http_version,
                method=head.method,
                raw_path=head.target,
                state=self.connection_state,
            )
        )
        if not (head.has_body or head.upgrades):
            if not plain:
                self.connection.next_event()  # the end of the request
            if stream.app_put is not None:
                stream.app_put.offer(dict(NO_BODY))  # before the application starts
        elif self.connection.they_are_waiting_for_100_continue and stream.app_put is not None:
            stream.app_put.when_awaited(partial(self.task_group.spawn, self._continue))
        self._overhead = 0
        self.keep_alive_requests += 1
        await self.context.mark_request()

    def _stream_for(self, head: RequestHead) -> HttpStream | WebSocketStream:
        if not head.upgrades:
            return HttpStream(self._server_connection, self, STREAM_ID)
        self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        return WebSocketStream(self._server_connection, self.stream_send, STREAM_ID, self._server_connection.write)

    async def _continue(self) -> None:
        """Have the client send a body that it has announced: the application waits for it."""
        if self.connection.they_are_waiting_for_100_continue:
            headers = self._server_connection.served.headers("h11", int(time()))
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))
            self._server_connection.expect_anew()  # the time for the body begins


def _known(request: h11.Request) -> dict[str, Any]:
    """The parts of a refused request for its line in the access log."""
    path, _, query = bytes(request.target).partition(b"?")
    known = {"method": request.method.decode(), "http_version": request.http_version.decode()}
    return {**known, "path": path.decode(), "query_string": query, "headers": list(request.headers)}


def _parser(config: Config) -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)

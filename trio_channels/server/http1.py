"""hypercorn's HTTP/1.1, with its defects fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import h11
from hypercorn.events import Closed
from hypercorn.protocol.events import Body, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol, H11WSConnection
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.typing import H11SendableEvent

from .limits import Waiting
from .streams import HttpStream, body_is_known, for_protocol
from .websocket import WebSocketStream

if TYPE_CHECKING:
    from .connection import ServerConnection


class Answered(EventWrapper):
    """Set when the next request may begin. A client that pipelines requests is not read until then."""

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__()
        self._server_connection = server_connection

    async def wait(self) -> None:
        """Wait until it is set, or the client has gone. Cancellation: nothing is lost."""
        await self._server_connection.unread(super().wait)


class Http1(H11Protocol):
    """One HTTP/1.1 connection."""

    def __init__(self, server_connection: ServerConnection) -> None:
        super().__init__(*for_protocol(server_connection))
        self.can_read = Answered(server_connection)
        self._server_connection = server_connection
        self._held_head = b""

    @property
    def waiting(self) -> Waiting:
        """The part of a request that the client has to send now."""
        if isinstance(self.connection, H11WSConnection):
            return Waiting.NOTHING
        if self.stream is None:
            started = self.keep_alive_requests == 0 or self.connection.trailing_data[0]
            return Waiting.HEAD if started else Waiting.REQUEST
        return Waiting.BODY if self.connection.their_state is h11.SEND_BODY else Waiting.NOTHING

    @property
    def unanswered(self) -> bool:
        """Whether a request has begun and no response to it has."""
        if isinstance(self.connection, H11WSConnection):
            return False
        begun = self.connection.their_state is not h11.IDLE or bool(self.connection.trailing_data[0])
        return begun and self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def forget_handshake(self) -> None:
        """Free h11's state: after the answer to a WebSocket's handshake it is not used."""
        del cast(H11WSConnection, self.connection).h11_connection

    async def refuse(self, status: int) -> None:
        """Respond to the current request with an error, if it is unanswered. Cancellation: may be sent in part."""
        if self.unanswered:
            await self._send_error_response(status)
            await self._close_stream()  # or the application would answer as well

    async def stream_send(self, event: Event) -> None:
        """Send an event of a request or WebSocket. Cancellation: may be sent in part."""
        if isinstance(event, Response) and event.status_code >= 200:
            await self._send_head(event)
        elif isinstance(event, Body | EndBody):
            await self.send_body(STREAM_ID, getattr(event, "data", b""), isinstance(event, EndBody))
        else:
            if self._held_head and isinstance(event, StreamClosed):
                await self.flush()
            await super().stream_send(event)

    async def _send_head(self, response: Response) -> None:
        """Hold the head until the body follows if its length is known; a streamed response sends it at once."""
        headers = [*response.headers, *self.config.response_headers("h11")]
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            headers.append((b"connection", b"close"))
        self._held_head = self._serialize(h11.Response(headers=headers, status_code=response.status_code))
        if self.stream is None or not body_is_known(self.stream.scope, response.status_code, headers):
            await self.flush()

    async def send_body(self, stream_id: int, data: bytes, end: bool) -> None:
        """Send a part of a response's body, and its end, in one write with the head that was held."""
        parts, self._held_head = [self._held_head], b""
        try:
            if data:
                parts.append(self._serialize(h11.Data(data=data)))
            if end:
                parts.append(self._serialize(h11.EndOfMessage()))
        finally:
            if whole := b"".join(parts):
                await self._server_connection.write(whole)

    async def flush(self) -> None:
        """Send a head that is still held. Cancellation: may be sent in part."""
        if self._held_head:
            head, self._held_head = self._held_head, b""
            await self._server_connection.write(head)

    def _serialize(self, event: H11SendableEvent) -> bytes:
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if data := self._serialize(event):
            await self._server_connection.write(data)

    async def _check_protocol(self, event: h11.Request) -> None:
        """D19: as hypercorn's, without the ``h2c`` upgrade, which RFC 9113 has removed from HTTP/2."""
        # Behind a proxy that forwards Upgrade for WebSockets, an upgraded client would bypass the proxy's rules, and
        # could forge forwarding headers.
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        """As hypercorn's, with our own streams. CONNECT is refused: tunnels are not supported."""
        # D20: a proxy and this server might see different ends of the body (request smuggling).
        names = {name for name, _ in request.headers}
        if b"content-length" in names and b"transfer-encoding" in names:
            raise h11.RemoteProtocolError("expected Content-Length or Transfer-Encoding, got both in one request")
        if request.method == b"CONNECT":
            await self._send_error_response(501)
            await self.send(Closed())
            return
        self.stream = stream = self._stream_for(request)
        if isinstance(stream, WebSocketStream):
            self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        raw = self.config.h11_pass_raw_headers
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=request.headers.raw_items() if raw else list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    def _stream_for(self, request: h11.Request) -> HttpStream | WebSocketStream:
        tokens: list[bytes] = []
        upgrade = b""
        for name, value in request.headers:
            if name == b"upgrade":
                upgrade = value.strip().lower()
            elif name == b"connection":
                tokens = [token.strip() for token in value.lower().split(b",")]
        if upgrade == b"websocket" and b"upgrade" in tokens and request.method.upper() == b"GET":
            return WebSocketStream(self._server_connection, self.stream_send, STREAM_ID, self._server_connection.write)
        return HttpStream(self._server_connection, self, STREAM_ID)

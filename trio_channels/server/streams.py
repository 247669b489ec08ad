"""The requests and WebSockets of one connection: their registry, how each begins, and HTTP requests themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from hypercorn.protocol.events import Body, EndBody, Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import build_and_validate_headers, suppress_body

from .._concurrency.queues import Inbox
from .refusals import count_refusal
from .tasks import ClientGone

if TYPE_CHECKING:
    from .connection import ServerConnection
    from .http1 import Http1
    from .http2 import Http2
    from .websocket import WebSocketStream

    Stream: TypeAlias = "HttpStream | WebSocketStream"


#: Statuses with which applications refuse bodies: Django's handler and the HTTP consumers do it, not the server.
_OF_BODIES = (408, 413)


class Streams:
    """The streams whose applications get a disconnect when the connection ends."""

    __slots__ = ("_open", "_over")

    def __init__(self) -> None:
        self._open: list[Stream] = []  # one with HTTP/1.1: a set would take four times the memory
        self._over = False

    def enter(self, stream: Stream) -> bool:
        """Add a stream; returns False if the connection has ended already."""
        if not self._over:
            self._open.append(stream)
        return not self._over

    def discard(self, stream: Stream) -> None:
        """Remove a stream that has been told, or has no application."""
        if stream in self._open:
            self._open.remove(stream)

    async def hang_up(self) -> None:
        """Send every application its disconnect, then log the ends. Cancellation: all of them have been told."""
        self._over = True
        for stream in [stream for stream in list(self._open) if stream.hang_up()]:
            await stream.log_end()


def for_protocol(server_connection: ServerConnection) -> tuple[Any, ...]:
    """The arguments of the constructors of hypercorn's protocols."""
    c = server_connection
    return (c.app, c.config, c.context, c.tasks, c.connection_state, c.secure, c.client, c.server, c.protocol_send)


def body_is_known(scope: Any, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the head of a response tells the length of its body: the head may wait for the body then."""
    if scope["type"] != "http":
        return False
    for name, _ in headers:
        if name.lower() == b"content-length":
            return True
    return suppress_body(scope["method"], status)


async def begin(
    stream: Stream, server_connection: ServerConnection, hypercorns: Awaitable[None], scope: dict[str, Any]
) -> bool:
    """Have hypercorn begin a stream; returns whether the application runs."""
    try:
        await hypercorns
    except UnicodeDecodeError:  # D1: a path or header that is not ASCII
        known = {"client": server_connection.client, "extensions": server_connection.extensions}
        stream.scope = scope | known  # type: ignore[assignment]
        stream.closed = True
        await stream._send_error_response(400)
    if stream.closed:
        stream.hang_up()
        await stream.send(StreamClosed(stream_id=stream.stream_id))
        return False
    stream.scope["extensions"].update(server_connection.extensions)
    return True


class HttpStream(HTTPStream):
    """One request."""

    __slots__ = ("_protocol", "_server_connection")

    app_put: Inbox | None  # type: ignore[assignment]

    def __init__(self, server_connection: ServerConnection, protocol: Http1 | Http2, stream_id: int) -> None:
        c = server_connection
        super().__init__(
            c.app, c.config, c.context, c.tasks, c.secure, c.client, c.server, protocol.stream_send, stream_id
        )
        self._protocol = protocol
        self._server_connection = server_connection
        self.app_put = None  # hypercorn sets it when the application starts: not for a wrong server name
        self.closed = not server_connection.streams.enter(self)

    async def handle(self, event: Event) -> None:
        """Handle an event from the client. Cancellation: the event may be lost."""
        if isinstance(event, StreamClosed):
            if self.hang_up():
                await self.log_end()
        elif self.closed:
            return
        elif isinstance(event, Request):
            unknown = {"type": "http", "path": "-", "method": event.method, "http_version": event.http_version}
            if await begin(self, self._server_connection, super().handle(event), unknown):
                self._server_connection.served.requests.add(self)
        else:
            body = event.data if isinstance(event, Body) else b""
            await self.receive(bytes(body), more=not isinstance(event, EndBody))

    async def receive(self, body: bytes, *, more: bool) -> None:
        """Give the application a part of the request's body. Cancellation: it may be lost."""
        inbox: Inbox = self.app_put  # type: ignore[assignment]  # set by the request
        if inbox.full:
            await self._server_connection.unread(inbox.room)
        await inbox({"type": "http.request", "body": body, "more_body": more})

    def hang_up(self) -> bool:
        """Send the application its disconnect; returns False if it had one already."""
        # Not async: a cancellation cannot interrupt it.
        self._server_connection.streams.discard(self)
        self._server_connection.served.requests.discard(self)
        if self.closed:
            return False
        self.closed = True
        if self.app_put is not None:
            self.app_put.end({"type": "http.disconnect"})
        return True

    async def log_end(self) -> None:
        """Log a request whose client left before its response had ended. Cancellation: as the logger."""
        if self.state is not ASGIHTTPState.CLOSED:
            # One that knows the length leaves with the last byte, and that of an event stream when it wants to.
            response: Any = None if self.state is ASGIHTTPState.REQUEST else self.response
            await self.config.log.access(self.scope, response, time() - self.start_time)

    async def app_send(self, message: Any) -> None:
        """Handle a message of the application. Raises ClientGone (D4)."""
        if self.closed:
            if message is None:
                return
            if self.state is not ASGIHTTPState.CLOSED:
                await trio.lowlevel.checkpoint()
                raise ClientGone(None, "the client has gone")
        kind = None if message is None else message["type"]
        if kind == "http.response.body" and self.state is ASGIHTTPState.RESPONSE:
            await self._send_body(message)
        elif kind == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            self.response = message
            headers = build_and_validate_headers(message.get("headers", ()))
            await self._protocol.send_head(self.stream_id, int(message["status"]), headers)
            self.state = ASGIHTTPState.RESPONSE
        else:
            await super().app_send(message)

    async def send_parts(self, parts: list[bytes], renew: Callable[[], object]) -> None:
        """As a message with these parts of the body, and more to come; `renew` is called when the client takes some."""
        begun = self.state is ASGIHTTPState.RESPONSE and not self.closed
        if begun and not suppress_body(self.scope["method"], int(self.response["status"])):
            await self._protocol.send_parts(self.stream_id, parts, renew)
        else:
            await self.app_send({"type": "http.response.body", "body": b"", "more_body": True})

    async def _send_error_response(self, status_code: int) -> None:
        count_refusal(self._server_connection, status_code)
        await super()._send_error_response(status_code)

    async def _send_body(self, message: Any) -> None:
        """As hypercorn's; the last part of the body and its end are one write."""
        data = message.get("body", b"")
        if suppress_body(self.scope["method"], int(self.response["status"])):
            data = b""
        more = message.get("more_body", False)
        ends = not more and not self.response.get("trailers", False)
        await self._protocol.send_body(self.stream_id, bytes(data), ends)
        if ends:
            self.state = ASGIHTTPState.CLOSED
            if self.response["status"] in _OF_BODIES:
                count_refusal(self._server_connection, self.response["status"])
            await self.config.log.access(self.scope, self.response, time() - self.start_time)
            await self._protocol.end_stream(self.stream_id)
        elif not more:
            self.state = ASGIHTTPState.TRAILERS

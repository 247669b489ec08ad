"""HTTP consumers: a request as a connection, for long polling, server-sent events and streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from .. import _conf
from .._asgi.protocol import Message, Receive, Scope, Send, State, announced_length
from .._asgi.responses import respond_plainly
from ..consumer import AsyncConsumer
from ..consumer.handlers import handles_client_event, not_awaitable
from ..exceptions import IllegalMessage, StopConsumer

__all__ = ["AsyncHttpConsumer"]

Headers = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]


_TOO_LARGE = "The request body is too large."


class AsyncHttpConsumer(AsyncConsumer):
    """Serves one HTTP request. Override ``handle``.

    Handlers of channel layer messages and of the disconnect run while ``handle`` runs. If ``handle`` returns after a
    body part with ``more_body=True``, the request stays open until a handler sends the last part.

    Attributes:
        max_body_size: the largest request body in bytes; a larger one is answered with 413. None: the setting
            ``MAX_BODY_SIZE``.
    """

    max_body_size: int | None = None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # A subclass may pass on the arguments of as_asgi().
        self._body: list[bytes] = []
        self._size = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, unless its body is announced as too long. Raises and cancellation: as any consumer's."""
        if announced_length(scope) > self._most:
            await respond_plainly(send, 413, _TOO_LARGE)
        else:
            await super().__call__(scope, receive, send)

    @property
    def _most(self) -> int:
        return int(_conf.get("MAX_BODY_SIZE")) if self.max_body_size is None else self.max_body_size

    @handles_client_event
    async def http_request(self, message: Message) -> None:
        """Collects the body, and starts ``handle`` when it is complete."""
        part = message.get("body", b"")
        self._size += len(part)
        if self._size > self._most:
            await self.send_response(413, f"{_TOO_LARGE}\n".encode())
            raise StopConsumer
        self._body.append(part)
        if not message.get("more_body"):
            self._dispatcher.start(self._serve, message)

    async def _serve(self, _message: Message) -> None:
        body, self._body = b"".join(self._body), []
        await self._call(self.handle, body)
        if self._connection.protocol.state is State.REQUEST and self._connection.closed is None:
            raise IllegalMessage(
                f"{type(self).__name__}.handle() returned without a response; expected send_response(), or "
                f"send_headers() and send_body(), with more_body=True if a later handler completes the response"
            )

    def _finished(self) -> bool:
        return self._connection.protocol.state is State.CLOSED

    @handles_client_event
    async def http_disconnect(self, message: Message) -> None:
        """Calls ``disconnect``."""
        await self._call(self.disconnect)
        raise StopConsumer

    def _call(self, method: Callable[..., Awaitable[None]], *args: object) -> Awaitable[None]:
        result = method(*args)
        if not hasattr(result, "__await__"):
            raise not_awaitable(self, method, result)
        return result

    async def handle(self, body: bytes) -> None:
        """Override: answer the request with the ``send_`` methods.

        Args:
            body: the whole request body.

        Cancellation: ``DISCONNECT_TIMEOUT`` seconds after the client has gone; with ``cancel_on_disconnect`` at once.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a method: async def handle(self, body)")

    async def disconnect(self) -> None:
        """Override: called once at every end of the request. Sending is no longer possible.

        Cancellation: shielded from the server's, for ``DISCONNECT_TIMEOUT`` seconds.
        """

    async def send_headers(self, *, status: int = 200, headers: Headers | None = None) -> None:
        """Start the response. The server sends the headers together with the first part of the body.

        Args:
            status: the HTTP status.
            headers: names and values, as bytes.

        Raises:
            IllegalMessage: the response has already been started, or an argument is malformed.
            ConnectionClosed: the client has gone.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a part of the body.

        Args:
            body: the part.
            more_body: whether further parts follow.

        Raises and cancellation: as :meth:`send_headers`.
        """
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send a whole response.

        Args:
            status: the HTTP status.
            body: the whole body.
            headers: names and values, as bytes.

        Raises and cancellation: as :meth:`send_headers`; the client may get a part of the response.
        """
        await self.send_headers(status=status, headers=headers)
        await self.send_body(body)

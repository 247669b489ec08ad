"""The Trio-native API: a WebSocket as the argument of an async function, without a class and without Django settings.

::

    @websocket
    async def chat(ws: WebSocket) -> None:
        await ws.accept()
        async with layer.subscribe("room") as events:
            ws.start_soon(ws.send_each, texts(events))
            async for text in ws:
                await layer.group_send("room", {"type": "chat.message", "text": text})

    async def texts(events):
        async for event in events:
            yield "some messages are missing here" if isinstance(event, Gap) else event["text"]
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Self, overload

import trio

from ._asgi.close_codes import NORMAL
from ._asgi.protocol import DISCONNECTS, Application, Message, Receive, Scope, Send
from ._connection.connection import Connection
from ._connection.supervisor import supervise
from ._limits import Limits
from .exceptions import ConnectionClosed, ServerProtocolError

__all__ = ["WebSocket", "websocket"]

Endpoint = Callable[["WebSocket"], Awaitable[object]]


class WebSocket:
    """One WebSocket connection, as an endpoint of :func:`websocket` receives it.

    ``async for message in ws`` yields a str or bytes per message, and ends when the client has gone.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: Message | None = None

    def __repr__(self) -> str:
        return f"<WebSocket {self._connection!r}>"

    @property
    def scope(self) -> Scope:
        """The ASGI scope."""
        return self._connection.scope

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order of preference."""
        return list(self.scope.get("subprotocols", ()))

    @property
    def nursery(self) -> trio.Nursery:
        """The connection's nursery; cancelled when the endpoint ends."""
        return self._connection.nursery

    @property
    def close_code(self) -> int | None:
        """The close code of a closed connection; None while it is open."""
        return self._connection.closed.code if self._connection.closed is not None else None

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task that ends with the endpoint. ``ConnectionClosed`` ends only the task.

        Args:
            function: an async function, called with `args`.
            name: the task's name in error messages; the function's by default.
        """
        self._connection.start_soon(function, *args, name=name)

    async def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Accept the connection.

        Args:
            subprotocol: one of :attr:`subprotocols`.
            headers: (name, value) pairs of bytes for the handshake's response.

        Raises:
            IllegalMessage: the connection is already accepted, or an argument is malformed.
            ConnectionClosed: the client has gone.

        Cancellation: as :meth:`send`.
        """
        await self._connection.send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers)})

    async def send(self, message: str | bytes) -> None:
        """Send one message: text for a str, binary for bytes.

        Raises:
            ConnectionClosed: the client has gone, or this side has closed.
            IllegalMessage: the WebSocket is not open, or the message is of another type.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        kind = "text" if isinstance(message, str) else "bytes"
        await self._connection.send({"type": "websocket.send", kind: message})

    async def send_each(self, messages: AsyncIterable[str | bytes]) -> None:
        """Send each message of an async iterable; a task for :meth:`start_soon`. Raises as :meth:`send`.

        An async generator is closed at the end, also after an error or a cancellation.

        Args:
            messages: text for a str, binary for bytes.

        Cancellation: as :meth:`send`; a message that was taken from the iterable may be lost.
        """
        try:
            async for message in messages:
                await self.send(message)
        finally:
            # Otherwise the ``finally`` blocks of an unfinished generator would run at some later time.
            if isinstance(messages, AsyncGenerator):
                await messages.aclose()

    async def receive(self) -> str | bytes:
        """Wait for the client's next message.

        Raises:
            ConnectionClosed: the client has gone, and all its messages have been received.

        Cancellation: loses no message.
        """
        connection = self._connection
        # While `receiving` is set, a disconnect arrives here, after the messages before it. There is no await between
        # taking a message and returning it.
        connection.receiving = True
        waited = False  # a wait is a checkpoint already; a second task switch would cost a fifth of an echo's time
        try:
            while True:
                if self._last is None and not connection.events:
                    waited = not await connection.wakeup.wait() or waited
                    continue
                if not waited:
                    await trio.lowlevel.checkpoint()
                event = self._last or connection.events.take()
                if event is None:
                    continue  # another task has taken the event
                if event["type"] in DISCONNECTS:
                    self._last = event
                    raise ConnectionClosed(event.get("code"), event.get("reason") or "")
                if event["type"] == "websocket.receive":
                    text = event.get("text")
                    message: str | bytes = text if text is not None else event["bytes"]
                    return message
        finally:
            connection.receiving = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection, or deny it if it was not accepted; does nothing once it is closed.

        Args:
            code: a close code that may be sent (RFC 6455, section 7.4).
            reason: at most 123 bytes of UTF-8.

        Raises:
            IllegalMessage: the code or reason must not be sent.

        Cancellation: as :meth:`send`.
        """
        await self._connection.close(code, reason)


@overload
def websocket(endpoint: Endpoint, /) -> Application: ...


@overload
def websocket(
    *, limits: Limits | None = None, cancel_on_disconnect: bool = True
) -> Callable[[Endpoint], Application]: ...


def websocket(
    endpoint: Endpoint | None = None, /, *, limits: Limits | None = None, cancel_on_disconnect: bool = True
) -> Application | Callable[[Endpoint], Application]:
    """Make an ASGI application of an async function that takes a :class:`WebSocket`.

    Args:
        endpoint: an async function that is called with each WebSocket.
        limits: time and count limits, see :class:`Limits`; None: the defaults.
        cancel_on_disconnect: whether to cancel the endpoint when the client goes, so that its ``finally`` blocks run at
            once. An endpoint that waits for a message, or has not received all, is not cancelled: its ``async for``
            ends. With False the endpoint has ``disconnect_timeout`` seconds to end by itself.

    When the endpoint returns, an open WebSocket is closed with 1000, and one that was not accepted is denied. An
    exception closes the WebSocket with 1011, and is passed on to the server.
    """
    if endpoint is None:
        return functools.partial(_application, limits=limits, cancel_on_disconnect=cancel_on_disconnect)
    return _application(endpoint, limits=limits, cancel_on_disconnect=cancel_on_disconnect)


def _application(endpoint: Endpoint, *, limits: Limits | None, cancel_on_disconnect: bool) -> Application:
    @functools.wraps(endpoint)
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ServerProtocolError(
                f"a @websocket endpoint expects a 'websocket' scope; got {scope['type']!r}. Put it behind a "
                f"ProtocolTypeRouter"
            )
        connection = Connection(
            scope, receive, send, limits, cancel_on_disconnect=cancel_on_disconnect, finish_reading=True
        )
        ws = WebSocket(connection)

        async def body() -> None:
            await endpoint(ws)

        await supervise(connection, body, scope=trio.CancelScope())

    return application

"""WebSocket consumers: ``connect``, ``receive``, ``disconnect``, and JSON on top.

All classes share the coroutines of ``_websocket_protocol``. In the synchronous classes these never suspend, and
:func:`_blocking` runs them to their end on a thread of the pool.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

from .._asgi.content import dumps
from .._asgi.protocol import Message
from ..consumer import AsyncConsumer, SyncConsumer
from ..sync import async_to_sync
from ._websocket_protocol import JsonProtocol, WebsocketProtocol, data_message, own_groups

__all__ = ["AsyncJsonWebsocketConsumer", "AsyncWebsocketConsumer", "JsonWebsocketConsumer", "WebsocketConsumer"]

T = TypeVar("T")
P = ParamSpec("P")


def _blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """Make a plain method of a coroutine method that never suspends."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        coroutine = method(self, *args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        coroutine.close()
        raise RuntimeError(f"{method.__qualname__} suspended in a synchronous consumer")

    return call


# As in Channels, `send` of these classes takes text or bytes, where `send` of their base takes an ASGI message. Type
# checkers reject such an override: hence the ignores.


class AsyncWebsocketConsumer(WebsocketProtocol, AsyncConsumer):
    """A WebSocket consumer with async methods. Override ``connect``, ``receive`` and ``disconnect``.

    Cancellation: handlers are cancelled ``DISCONNECT_TIMEOUT`` seconds after the client has gone (with
    ``cancel_on_disconnect`` at once), and when the server or another handler ends the connection.
    """

    def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> Awaitable[None]:
        """Send one WebSocket message.

        Args:
            text_data, bytes_data: the message, in exactly one of the two.
            close: whether to close afterwards; a number is the close code.

        Raises:
            IllegalMessage: not exactly one argument of the right type was given, or the WebSocket is not open.
            ConnectionClosed: the client has gone. Uncaught it ends the handler normally.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        if close:
            return super().send(text_data, bytes_data, close)
        # As super().send(), with one coroutine less: each message that waits for a slow client holds its coroutines.
        return self._connection.send(data_message(text_data, bytes_data))

    def _emit(self, message: Message) -> Awaitable[None]:
        return self._connection.send(message)


class AsyncJsonWebsocketConsumer(JsonProtocol, AsyncWebsocketConsumer):
    """A WebSocket consumer that speaks JSON. Override ``receive_json``; use ``send_json``."""


class WebsocketConsumer(SyncConsumer):
    """A WebSocket consumer with plain methods, run on threads of the pool.

    Override ``connect``, ``receive`` and ``disconnect``. It has the methods of :class:`AsyncWebsocketConsumer`, without
    ``await``.

    Attributes:
        groups: a list of the names of channel layer groups that every connection of the class joins before ``connect``.
    """

    groups: Iterable[str] | None = None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        own_groups(self)

    async def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return function(*args, **kwargs)

    async def _emit(self, message: Message) -> None:
        SyncConsumer.send(self, message)

    def _join(self, group: str) -> None:
        if self.channel_layer is not None:
            async_to_sync(self.channel_layer.group_add)(group, self.channel_name)

    _deny = WebsocketProtocol._deny
    websocket_connect = _blocking(WebsocketProtocol.websocket_connect)
    websocket_receive = WebsocketProtocol.websocket_receive
    websocket_disconnect = _blocking(WebsocketProtocol.websocket_disconnect)
    connect = _blocking(WebsocketProtocol.connect)
    receive = _blocking(WebsocketProtocol.receive)
    disconnect = _blocking(WebsocketProtocol.disconnect)
    accept = _blocking(WebsocketProtocol.accept)
    close = _blocking(WebsocketProtocol.close)

    def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send one WebSocket message; returns when it is queued, in order.

        Args and Raises: as :meth:`AsyncWebsocketConsumer.send`.
        """
        self._outbox.put(data_message(text_data, bytes_data))
        if close:
            self.close(close)


class JsonWebsocketConsumer(WebsocketConsumer):
    """A WebSocket consumer with plain methods that speaks JSON. Override ``receive_json``; use ``send_json``."""

    receive = _blocking(JsonProtocol.receive)
    receive_json = _blocking(JsonProtocol.receive_json)
    receive_invalid_json = _blocking(JsonProtocol.receive_invalid_json)
    send_json = _blocking(JsonProtocol.send_json)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Decode JSON text; override for another decoder. Raises ValueError for text that is not JSON."""
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Encode an object as JSON text; override for another encoder."""
        return dumps(content)

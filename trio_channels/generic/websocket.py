"""WebSocket consumers: ``connect``, ``receive``, ``disconnect``, and JSON on top.

The protocol is the same for all of them: the synchronous classes have its coroutines, which never suspend there, run to
their end in a worker thread by :func:`_blocking`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

from .._asgi.protocol import Message
from ..consumer import AsyncConsumer, SyncConsumer
from ..sync import async_to_sync
from ._websocket_protocol import JsonProtocol, WebsocketProtocol, data_message, dumps, own_groups

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


# The public names. `send` of these classes takes a WebSocket's text or bytes, where that of their base takes a whole
# ASGI message: Channels' API, which a subclass check cannot like.


class AsyncWebsocketConsumer(WebsocketProtocol, AsyncConsumer):
    """A WebSocket consumer with async methods. Override ``connect``, ``receive`` and ``disconnect``."""

    def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> Awaitable[None]:
        """Send one WebSocket message.

        Args:
            text_data, bytes_data: the message; exactly one of the two.
            close: close afterwards; a number is the close code.

        Raises:
            IllegalMessage: not exactly one was given, of the right type, or the WebSocket is not open.
            ConnectionClosed: the client has gone; left uncaught it is a normal end of the handler.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        if close:
            return super().send(text_data, bytes_data, close)
        # The same, with one coroutine less: there is one for each message on its way to a client who reads slowly.
        return self._connection.send(data_message(text_data, bytes_data))

    def _emit(self, message: Message) -> Awaitable[None]:
        return self._connection.send(message)


class AsyncJsonWebsocketConsumer(JsonProtocol, AsyncWebsocketConsumer):
    """A WebSocket consumer that speaks JSON. Override ``receive_json``; use ``send_json``."""


class WebsocketConsumer(SyncConsumer):
    """A WebSocket consumer with plain methods, run on worker threads.

    Override ``connect``, ``receive`` and ``disconnect``.
    The methods are those of :class:`AsyncWebsocketConsumer`, without ``await``.
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

        Args and raises: as of :meth:`AsyncWebsocketConsumer.send`.
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
        """JSON text to an object; override for another decoder. Raises ValueError for what is not JSON."""
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """An object to JSON text; override for another encoder."""
        return dumps(content)

"""The behaviour of WebSocket consumers, sync and async: handshake, messages, close, and JSON on top.

It is written once, as coroutines that call the consumer's methods through ``_call`` and send through ``_emit``. In the
asynchronous classes of :mod:`trio_channels.generic.websocket` these two await; in the synchronous ones they never
suspend.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from .._asgi.close_codes import INVALID_DATA, NO_STATUS, UNSUPPORTED_DATA
from .._asgi.content import dumps
from .._asgi.protocol import Message
from .._connection.connection import Connection
from ..consumer.handlers import check_groups, handles_client_event, not_awaitable
from ..exceptions import AcceptConnection, ConfigurationError, DenyConnection, InvalidChannelLayerError, StopConsumer
from ..layers.base import ChannelLayer

logger = logging.getLogger("trio_channels.consumer")

Headers = Iterable[tuple[bytes, bytes]]

_PACKAGE = __name__.partition(".")[0] + "."


class WebsocketProtocol:
    """The behaviour of a WebSocket consumer, sync or async.

    Attributes:
        groups: a list of the names of channel layer groups that every connection of the class joins before ``connect``.
    """

    groups: Iterable[str] | None = None

    channel_layer_alias: str
    channel_layer: ChannelLayer | Any
    channel_name: str
    _connection: Connection

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # A subclass may pass on the arguments of as_asgi().
        own_groups(self)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call a method that the consumer's class may override."""
        result: Awaitable[Any] = function(*args, **kwargs)
        if not hasattr(result, "__await__"):
            raise not_awaitable(self, function, result)
        return result

    def _emit(self, message: Message) -> Awaitable[None]:
        """Send an ASGI message."""
        raise NotImplementedError  # pragma: no cover

    @handles_client_event
    async def websocket_connect(self, message: Message) -> None:
        """Joins the class' groups, and calls ``connect``."""
        check_groups(type(self).__name__, self.groups)  # an instance may have its own
        if self.groups and self.channel_layer is None:
            raise InvalidChannelLayerError(
                f"{type(self).__name__}.groups needs a channel layer, but CHANNEL_LAYERS has no entry "
                f"{self.channel_layer_alias!r}"
            )
        try:
            for group in self.groups or ():
                await self._call(self._join, group)
            await self._call(self.connect)
        except AcceptConnection as accepted:
            await self._call(self.accept, accepted.subprotocol)
        except DenyConnection as denied:
            await self._deny(denied)

    async def _join(self, group: str) -> None:
        if self.channel_layer is not None:
            await self.channel_layer.group_add(group, self.channel_name)

    async def _deny(self, denied: DenyConnection) -> None:
        if denied.status is None or "websocket.http.response" not in (self._connection.scope.get("extensions") or ()):
            await self._call(self.close)
            return
        await self._emit({"type": "websocket.http.response.start", "status": denied.status, "headers": denied.headers})
        await self._emit({"type": "websocket.http.response.body", "body": denied.body})

    @handles_client_event
    def websocket_receive(self, message: Message) -> Any:
        """Calls ``receive`` with the message, and returns its result: an awaitable in an async consumer."""
        text = message.get("text")
        return self.receive(text_data=text) if text is not None else self.receive(bytes_data=message["bytes"])

    @handles_client_event
    async def websocket_disconnect(self, message: Message) -> None:
        """Calls ``disconnect``. The connection's group memberships end after it."""
        code = message.get("code")
        await self._call(self.disconnect, NO_STATUS if code is None else code)
        raise StopConsumer

    async def connect(self) -> None:
        """Override: accept or close, here or later within ``ACCEPT_TIMEOUT`` seconds. Accepts by default."""
        await self._call(self.accept)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Override: called with each message: text or bytes; the other argument is None."""
        warn_of_ignored(type(self), "receive", "(self, text_data=None, bytes_data=None)")

    if TYPE_CHECKING:
        # Overrides may name the code as they like; Channels' documentation has `close_code`.
        async def disconnect(self, code: int, /) -> None: ...
    else:

        async def disconnect(self, code: int) -> None:
            """Override: called once at every end of the connection.

            Args:
                code: the close code; 1011 after an error of the consumer.

            Cancellation, if async: shielded from the server's, for ``DISCONNECT_TIMEOUT`` seconds.
            """

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Accept the WebSocket.

        Args:
            subprotocol: one of the subprotocols that the client offers.
            headers: (name, value) pairs of bytes for the handshake's response.

        Raises:
            IllegalMessage: the WebSocket is already accepted, or an argument is malformed.
            ConnectionClosed: the client has gone.

        Cancellation, if async: as ``send``.
        """
        message: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
        if headers is not None:
            message["headers"] = list(headers)
        await self._emit(message)

    async def send(
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """See :meth:`trio_channels.generic.websocket.AsyncWebsocketConsumer.send`."""
        await self._emit(data_message(text_data, bytes_data))
        if close:
            await self._call(self.close, close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the WebSocket, or deny it if it was not accepted; does nothing once it is closed.

        Args:
            code: a close code that may be sent (RFC 6455, section 7.4); 1000 by default.
            reason: at most 123 bytes of UTF-8.

        Raises:
            IllegalMessage: the code or reason must not be sent.

        Cancellation, if async: as ``send``.
        """
        if self._connection.over:
            return
        message: Message = {"type": "websocket.close"}
        if code is not None and code is not True:
            message["code"] = code
        if reason:
            message["reason"] = reason
        await self._emit(message)


def warn_of_ignored(cls: type, name: str, arguments: str) -> None:
    """Log, once for a consumer class, that it lacks a method for the messages of clients."""
    # An override of the class may have called the framework's method by super().
    if vars(cls).get("_warned_of_ignored") or not getattr(cls, name).__module__.startswith(_PACKAGE):
        return
    cls._warned_of_ignored = True  # type: ignore[attr-defined]
    logger.warning(
        "%s ignores the messages of its clients, as it has no method %s%s (logged once)", cls.__name__, name, arguments
    )


def own_groups(consumer: Any) -> None:
    """Give an instance its own list of groups, so that it may add to it before ``connect``."""
    groups: object = type(consumer).groups  # not the instance's: a property may need the scope, which is not set yet
    if groups is None or isinstance(groups, list):
        consumer.groups = list(consumer.groups or ())


def data_message(text: str | None, data: bytes | None) -> Message:
    message: Message = {"type": "websocket.send"}
    if text is not None:
        message["text"] = text
    if data is not None:
        message["bytes"] = data
    return message


class JsonProtocol(WebsocketProtocol):
    """JSON text messages, sync or async."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decodes a text message for ``receive_json``; closes with 1003 at a binary one.

        Args:
            text_data, bytes_data: the message.
            kwargs: further arguments of ``receive_json``, from an overriding method.
        """
        if text_data is None:
            await self._call(self.close, UNSUPPORTED_DATA, "expected JSON in a text message")
            return
        try:
            content = await self._call(self.decode_json, text_data)
        except ConfigurationError:
            raise
        except (ValueError, RecursionError) as error:
            await self._call(self.receive_invalid_json, text_data, error)
        else:
            await self._call(self.receive_json, content, **kwargs)

    async def receive_json(self, content: Any) -> None:
        """Override: called with each decoded message."""
        warn_of_ignored(type(self), "receive_json", "(self, content)")

    async def receive_invalid_json(self, text_data: str, error: Exception) -> None:
        """Called with text that is not JSON; closes with 1007 by default. Override to keep the connection open."""
        await self._call(self.close, INVALID_DATA, "expected JSON")

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send an object as JSON.

        Args:
            content: an object that :func:`json.dumps` takes.
            close: whether to close afterwards; a number is the close code.

        Raises:
            TypeError: the content holds a value that JSON has no type for.
            ValueError: the content refers to itself.
            ConnectionClosed: the client has gone. Uncaught it ends the handler normally.

        Cancellation, if async: as ``send``.
        """
        await self._call(self.send, text_data=await self._call(self.encode_json, content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Decode JSON text; override for another decoder. Raises ValueError for text that is not JSON."""
        return json.loads(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Encode an object as JSON text; override for another encoder."""
        return dumps(content)

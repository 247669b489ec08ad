"""All exceptions of trio-channels, in one tree under :class:`TrioChannelsError`.

Exceptions that Channels has too keep their names. The control flow exceptions (:class:`StopConsumer`,
:class:`AcceptConnection`, :class:`DenyConnection`) are in the tree, so that ``except TrioChannelsError`` catches all.
"""

from __future__ import annotations

from collections.abc import Iterable


class TrioChannelsError(Exception):
    """The root of the tree."""


class StopConsumer(TrioChannelsError):
    """Raise in a handler to end the consumer normally; a WebSocket that is still open is closed with 1000."""


class AcceptConnection(TrioChannelsError):
    """Raise in ``connect`` to accept the WebSocket.

    Args:
        subprotocol: the chosen subprotocol, one of those that the client offers.
    """

    def __init__(self, subprotocol: str | None = None) -> None:
        super().__init__(subprotocol)
        self.subprotocol = subprotocol


class DenyConnection(TrioChannelsError):
    """Raise in ``connect`` to deny the WebSocket, optionally with an HTTP response.

    A server without the ``websocket.http.response`` extension always answers 403.

    Args:
        status: the HTTP status, 200 to 599. None: the server's choice, 403 with all known servers.
        headers: (name, value) pairs of bytes.
        body: the response's body.
    """

    def __init__(
        self, status: int | None = None, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = list(headers)
        self.body = body


class Refused(TrioChannelsError):
    """Raise in a handler of a topic to answer the client's push with an error.

    Args:
        response: the content of the error reply: a value that msgspec encodes as JSON; an empty object by default.
    """

    def __init__(self, response: object = None) -> None:
        super().__init__(response)
        self.response = {} if response is None else response


class JoinRefused(Refused):
    """Raise in ``join`` of a topic to refuse the join; the client gets the response in an error reply."""


class ConnectionClosed(TrioChannelsError):
    """Sending failed because the client has gone, or because this side has closed the connection.

    Uncaught in a handler it is a normal end, not an error.

    Args:
        code: the WebSocket close code (RFC 6455, section 7.4), or None for HTTP.
        reason: the text that came with the code.
    """

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        detail = f"code {self.code}" if self.code is not None else "no code"
        return f"the connection is closed ({detail}{', ' + self.reason if self.reason else ''})"


class IllegalMessage(TrioChannelsError, ValueError):
    """The application tried to send an ASGI message that is malformed or not allowed in the connection's state."""


class ServerProtocolError(TrioChannelsError):
    """The server delivered an event that the ASGI specification does not allow in the connection's state."""


class UnhandledMessage(TrioChannelsError, ValueError):
    """The server delivered an event for which the consumer has no handler."""


class RequestAborted(TrioChannelsError):
    """The client left before the request was read completely."""


class RequestTimeout(TrioChannelsError):
    """Reading the request took longer than the time limit."""


class RequestBodyTooLarge(TrioChannelsError):
    """The request's body is longer than the limit; answered with 413."""


class RequestBodyNotStored(TrioChannelsError):
    """The server has no room for the request's body; answered with 507, or with 500 if the fault is another one."""


class ChannelLayerError(TrioChannelsError):
    """The root of the errors of channel layers."""


class InvalidChannelLayerError(ChannelLayerError, ValueError):
    """A channel layer is misconfigured, or is missing where one is needed."""


class InvalidNameError(ChannelLayerError, TypeError):
    """A channel or group name breaks the rules (also a ``TypeError``, as in Channels)."""


class MessageNotEncodable(ChannelLayerError, TypeError):
    """A channel layer message holds a value that cannot be encoded."""


class MessageTooLarge(ChannelLayerError):
    """A channel layer message is larger than the layer's limit."""


class TooManyTrackedKeys(ChannelLayerError):
    """The connection tracks as many keys as the layer's option ``presence`` allows."""


class ChannelFull(ChannelLayerError):
    """The channel is at its capacity; the message was not accepted."""


class MailboxOverflow(ChannelLayerError):
    """A subscriber with ``overflow="close"`` fell behind by more messages than its mailbox holds."""


class ForeignChannel(ChannelLayerError, ValueError):
    """A task would receive on a channel of another process or Trio run, where no message arrives."""


class ChannelLayerUnavailable(ChannelLayerError):
    """The layer's backend did not answer within the time limit, or the layer is not open."""


class WorkerPoolBusy(TrioChannelsError):
    """More calls wait for a thread than the pool's queue may hold."""


class WorkerPoolClosed(TrioChannelsError):
    """The pool's Trio run is ending, so that no new call can begin."""


class BridgeError(TrioChannelsError, RuntimeError):
    """``async_to_sync`` or ``sync_to_async`` was used where it cannot work."""


class TransactionError(TrioChannelsError, RuntimeError):
    """Open ``aatomic`` blocks were not left from the inside out; they were rolled back."""


class TransactionTimeout(TrioChannelsError, TimeoutError):
    """An ``aatomic`` block took longer than its time limit; it was rolled back."""


class ConfigurationError(TrioChannelsError, ValueError):
    """A setting or argument has an unknown name or an invalid value."""


class CannotStart(TrioChannelsError):
    """The server cannot start; the message names the cause."""


class NoRouteFound(TrioChannelsError, ValueError):
    """A router has no application for a scope."""


class TopicClientError(TrioChannelsError):
    """The root of the errors of :mod:`trio_channels.client`."""


class CannotConnect(TopicClientError):
    """A client could not connect.

    Args:
        message: the reason.
        status: the HTTP status with which the server has denied the WebSocket, or None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SocketEnded(TopicClientError):
    """A client's socket has ended for good, and does not come back.

    Args:
        message: the reason.
        code: the close code, or None if the server has denied the WebSocket.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class TopicEnded(TopicClientError):
    """The topic has been left, or the server has ended it."""


class JoinFailed(TopicClientError):
    """The server has refused a join.

    Args:
        response: the content of the error reply.
    """

    def __init__(self, response: object) -> None:
        super().__init__(response)
        self.response = response


class PushFailed(TopicClientError):
    """The server has answered a push with an error.

    Args:
        response: the content of the error reply.
    """

    def __init__(self, response: object) -> None:
        super().__init__(response)
        self.response = response


class NotConnected(TopicClientError):
    """A push was not sent, as the topic is not joined now."""


class ReplyLost(TopicClientError):
    """A push was sent, and its reply will not come: nobody knows whether the server has handled it."""


class ReplyTimeout(TopicClientError, TimeoutError):
    """The reply to a join or push has not come within the time limit."""

"""Every error of trio-channels, in one tree under :class:`TrioChannelsError`.

The names that Django Channels users know are kept. Control flow (:class:`StopConsumer`, :class:`AcceptConnection`,
:class:`DenyConnection`) is in the tree too, so that ``except TrioChannelsError`` is a complete border.
"""

from __future__ import annotations

from collections.abc import Iterable


class TrioChannelsError(Exception):
    """The root of the tree."""


# -- how a handler ends its connection on purpose ---------------------------------------------------------------------


class StopConsumer(TrioChannelsError):
    """Raise in a handler to end the consumer cleanly; a WebSocket that is still open is closed with 1000."""


class AcceptConnection(TrioChannelsError):
    """Raise in ``connect`` to accept the WebSocket.

    Args:
        subprotocol: the chosen subprotocol, one of those the client offered.
    """

    def __init__(self, subprotocol: str | None = None) -> None:
        super().__init__(subprotocol)
        self.subprotocol = subprotocol


class DenyConnection(TrioChannelsError):
    """Raise in ``connect`` to deny the WebSocket, optionally with an HTTP response of one's own.

    Args:
        status: the HTTP status, 200 to 599. None lets the server choose (403 with every known server).
        headers: (name, value) pairs of byte strings.
        body: the response's body.

    A server without the ``websocket.http.response`` extension answers 403 whatever is given here.
    """

    def __init__(
        self, status: int | None = None, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = list(headers)
        self.body = body


# -- the connection ---------------------------------------------------------------------------------------------------


class ConnectionClosed(TrioChannelsError):
    """The connection cannot be sent to any more: the client has gone, or this side has closed it.

    Left uncaught in a handler it is a normal end, not an error.

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
    """The server delivered an ASGI event that the ASGI specification does not allow there."""


class UnhandledMessage(TrioChannelsError, ValueError):
    """The server delivered an event for which the consumer has no handler."""


class RequestAborted(TrioChannelsError):
    """The client left before the request had been read."""


class RequestTimeout(TrioChannelsError):
    """Reading the request took longer than its limit."""


class RequestBodyTooLarge(TrioChannelsError):
    """The request's body is longer than the limit; answered with 413."""


# -- channel layers ---------------------------------------------------------------------------------------------------


class ChannelLayerError(TrioChannelsError):
    """The root of what channel layers raise."""


class InvalidChannelLayerError(ChannelLayerError, ValueError):
    """A channel layer is configured wrongly, or is missing where one is needed."""


class InvalidNameError(ChannelLayerError, TypeError):
    """A channel or group name breaks the rules (also a ``TypeError``, as in Channels)."""


class MessageNotEncodable(ChannelLayerError, TypeError):
    """A channel layer message holds a value that cannot travel between processes."""


class MessageTooLarge(ChannelLayerError):
    """A channel layer message is larger than the layer takes."""


class ChannelFull(ChannelLayerError):
    """The channel a message was sent to is at its capacity; the message was not accepted."""


class MailboxOverflow(ChannelLayerError):
    """A subscriber with ``overflow="close"`` fell behind by more than its mailbox holds."""


class ChannelLayerUnavailable(ChannelLayerError):
    """The layer's backend could not be reached within the time limit."""


# -- worker threads and bridges ---------------------------------------------------------------------------------------


class WorkerPoolBusy(TrioChannelsError):
    """More calls wait for a worker thread than the pool's queue may hold."""


class WorkerPoolClosed(TrioChannelsError):
    """The pool's Trio run is ending, so that no call can begin any more."""


class BridgeError(TrioChannelsError, RuntimeError):
    """``async_to_sync`` or ``sync_to_async`` was used where it cannot work."""


class TransactionError(TrioChannelsError, RuntimeError):
    """Blocks of ``aatomic`` that are open at the same time were not left from the inside out; rolled back."""


class TransactionTimeout(TrioChannelsError, TimeoutError):
    """A block of ``aatomic`` took longer than its limit; rolled back."""


# -- configuration ----------------------------------------------------------------------------------------------------


class ConfigurationError(TrioChannelsError, ValueError):
    """A setting has an unknown name or an impossible value."""


class CannotStart(TrioChannelsError):
    """The server cannot start: the message says what is missing, wrong or taken."""


class NoRouteFound(TrioChannelsError, ValueError):
    """A ``channel`` scope names a channel that the router does not know."""

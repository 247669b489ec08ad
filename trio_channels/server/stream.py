"""What is alike in requests and WebSockets, and in both versions of HTTP: what they are made with, how they begin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hypercorn.protocol.events import Event, StreamClosed

if TYPE_CHECKING:
    from .connection import Connection
    from .http import HttpStream
    from .websocket import WebSocketStream


def for_protocol(wire: Connection) -> tuple[Any, ...]:
    """The arguments that hypercorn's protocols are made with."""
    state, peers = wire.connection_state, (wire.client, wire.server)
    return (wire.app, wire.config, wire.context, wire.tasks, state, wire.secure, *peers, wire.protocol_send)


def for_stream(wire: Connection, send: Callable[[Event], Awaitable[None]], stream_id: int) -> tuple[Any, ...]:
    """The arguments that hypercorn's streams are made with."""
    peers = (wire.client, wire.server)
    return (wire.app, wire.config, wire.context, wire.tasks, wire.secure, *peers, send, stream_id)


async def begin(
    stream: HttpStream | WebSocketStream, wire: Connection, hypercorns: Awaitable[None], scope: dict[str, Any]
) -> bool:
    """Have hypercorn begin a stream, and say whether it goes on.

    D1: a path or a header that is no ASCII is answered with 400.

    Args:
        stream: the stream.
        wire: the connection it is on.
        hypercorns: its own way to begin.
        scope: what the log is told of a stream that could not even begin.

    Cancellation: the stream is not usable.
    """
    try:
        await hypercorns
    except UnicodeDecodeError:
        stream.scope = scope  # type: ignore[assignment]
        stream.closed = True
        await stream._send_error_response(400)
    if stream.closed:
        stream.hang_up()
        await stream.send(StreamClosed(stream_id=stream.stream_id))
        return False
    stream.scope["extensions"].update(wire.extensions)
    return True

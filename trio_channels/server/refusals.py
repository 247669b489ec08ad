"""Requests that the server refuses by itself: each is counted, and has a line in the access log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.utils import parse_socket_addr

from .limits import LINGER
from .transport import SocketTransport

if TYPE_CHECKING:
    from ssl import SSLContext

    from .connection import ServerConnection
    from .connections import Server


_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # seconds
)


def count_refusal(connection: ServerConnection, status: int) -> None:
    """Count a refusal that has its line already, if it is one: a 500 is the application's."""
    if status != 500:
        connection.served.refusals[status] += 1


async def refused(connection: ServerConnection, status: int, request: Mapping[str, Any] | None = None) -> None:
    """Count a refusal, and log it with as much of the request as is known. Cancellation: as the logger.

    Args:
        connection: the connection of the client.
        status: the status of the answer, or the one that says best why the connection ends.
        request: entries of the request's scope; without them the line has "-" in their places.
    """
    known = {"scheme": "https" if connection.secure else "http", "client": connection.client}
    await refused_at_once(connection.served, status, {**known, "extensions": connection.extensions, **(request or {})})


async def refused_at_once(served: Server, status: int, request: Mapping[str, Any]) -> None:
    """As :func:`refused`, without a connection: there are too many, or there is no descriptor."""
    served.refusals[status] += 1
    scope: Any = {"type": "http", "method": "-", "path": "-", "headers": [], **request}
    response: Any = {"status": status, "headers": []}
    await served.config.log.access(scope, response, 0.0)


async def turn_away(
    served: Server, stream: trio.SocketStream, tls: SSLContext | None, *, politely: bool = True
) -> None:
    """Respond with 503, without a connection; with TLS just close: a handshake would cost too much.

    Args:
        politely: whether to answer, and to wait until the client has read it, for ``LINGER`` seconds at most.
    """
    transport = SocketTransport(stream)
    try:
        client = parse_socket_addr(transport.socket.family, transport.socket.getpeername())
        await refused_at_once(served, 503, {"scheme": "http" if tls is None else "https", "client": client})
        if tls is None and politely:
            transport.send_nowait(_REFUSAL)
            transport.shut_down()
            await transport.drain(LINGER, LINGER)
    except (OSError, trio.BrokenResourceError):
        pass  # the client has gone

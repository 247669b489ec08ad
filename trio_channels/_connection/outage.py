"""What a client is told when the channel layer cannot be reached: it can come back, and nobody has made a mistake."""

from __future__ import annotations

import logging

import trio

from .._asgi import protocol
from .._asgi.close_codes import SERVICE_RESTART
from .._asgi.protocol import State
from ..exceptions import ChannelLayerUnavailable, ConnectionClosed
from .connection import Connection

logger = logging.getLogger("trio_channels.connection")

#: The reason that a client is given.
UNAVAILABLE = "service unavailable"


async def answer_outage(connection: Connection, failure: BaseException | None) -> BaseException | None:
    """Answer a client whose application ended with ChannelLayerUnavailable; returns the failure if that was not it.

    A handshake and a request are answered with 503, an open WebSocket will be closed with 1012. One line is logged: it
    is no error of the application, and a thousand clients may come at a time.

    Cancellation: shielded, for ``close_timeout`` seconds at the most.
    """
    state = connection.protocol.state
    if (
        not isinstance(failure, ChannelLayerUnavailable)
        or connection.closed is not None
        or state not in (State.CONNECTING, State.OPEN, State.REQUEST)
    ):
        return failure
    logger.error("%s ends: %s", protocol.describe(connection.scope), failure)
    connection.parting = ConnectionClosed(SERVICE_RESTART, UNAVAILABLE)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
        try:
            if state is State.REQUEST:
                await _respond(connection, "http.response")
            elif state is State.CONNECTING and "websocket.http.response" in (connection.scope.get("extensions") or ()):
                await _respond(connection, "websocket.http.response")
        except ConnectionClosed:
            pass  # it has just gone by itself
    return None


async def _respond(connection: Connection, kind: str) -> None:
    body = b"The service is not available for the moment.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"5"),
    ]
    await connection.send({"type": f"{kind}.start", "status": 503, "headers": headers})
    await connection.send({"type": f"{kind}.body", "body": body})

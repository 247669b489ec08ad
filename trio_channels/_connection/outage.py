"""The answer to a client while the channel layer cannot be reached: service unavailable, come back later."""

from __future__ import annotations

import logging

import trio

from .._asgi import protocol
from .._asgi.close_codes import SERVICE_RESTART
from .._asgi.protocol import State
from .._asgi.responses import respond_plainly
from ..exceptions import ChannelLayerUnavailable, ConnectionClosed
from .connection import Connection
from .parting import UNAVAILABLE

logger = logging.getLogger("trio_channels.connection")


async def answer_outage(connection: Connection, failure: BaseException | None) -> BaseException | None:
    """Answer a client whose application ended with ChannelLayerUnavailable; returns any other failure.

    A handshake and a request are answered with 503; an open WebSocket is going to be closed with 1012.
    """
    state = connection.protocol.state
    if (
        not isinstance(failure, ChannelLayerUnavailable)
        or connection.closed is not None
        or state not in (State.CONNECTING, State.OPEN, State.REQUEST)
    ):
        return failure
    # Without a traceback: it is no error of the application, and there may be a thousand clients at a time.
    logger.error("%s ends: %s", protocol.describe(connection.scope), failure)
    connection.parting = ConnectionClosed(SERVICE_RESTART, UNAVAILABLE)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
        try:
            kind = "http.response" if state is State.REQUEST else "websocket.http.response"
            extensions = connection.scope.get("extensions") or ()
            if state is State.REQUEST or (state is State.CONNECTING and kind in extensions):
                text = "The service is not available for the moment."
                await respond_plainly(connection.send, 503, text, [(b"retry-after", b"5")], kind=kind)
        except ConnectionClosed:
            pass  # the client has just gone
    return None

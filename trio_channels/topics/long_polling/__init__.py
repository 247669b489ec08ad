"""Topics over HTTP, for clients without WebSockets: the long-polling of ``phoenix``, the streams of ``topics.js``.

    application = ProtocolTypeRouter(
        {
            "http": URLRouter([path("socket/longpoll", LongPolling(websocket)), re_path("", get_asgi_application())]),
            "websocket": websocket,
        }
    )

The rules:

1. A session is a WebSocket to the application: the whole application for WebSockets serves it, with its middleware and
   routes, so that origins, users and limits are checked in one place.
2. A session lives between requests, in the nursery of the server's lifespan (:mod:`trio_channels._connection.lasting`).
   It ends when the application or the client closes it, when no poll or stream has come for ``LONG_POLL_TIMEOUT``
   seconds, and with the server.
3. Its token is signed, and names the process. Another process that gets a request forwards it over the channel layer.
4. Everything is bounded: sessions, the messages that wait, bodies, one poll or stream and one post at a time.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from ..._asgi.protocol import ASGIApplication, Receive, Scope, Send, describe, note_connection
from ..._connection.lasting import current
from ..._connection.registry import connections_of
from ..._http.client import Client, ClientLeft
from ...exceptions import ConfigurationError
from .exchange import Exchange
from .sessions import Sessions

__all__ = ["LongPolling"]

logger = logging.getLogger("trio_channels.topics")


class LongPolling:
    """An ASGI application for HTTP, for clients without WebSockets, in front of an application for WebSockets.

    It serves the long-polling of ``phoenix``, and the server-sent events of ``topics.js``.

    Route it at the path of the WebSocket, with ``longpoll`` in the place of ``websocket``.

    Args:
        websocket: the application for WebSockets, with its middleware: that of the entry ``websocket`` of your
            ProtocolTypeRouter.
    """

    def __init__(self, websocket: ASGIApplication) -> None:
        self.websocket = websocket  # not "application": a URLRouter would take the route for a prefix

    def __repr__(self) -> str:
        return f"<LongPolling before {self.websocket!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Answer one request.

        Raises:
            ConfigurationError: the scope is not an HTTP scope below ``/longpoll``, or the server runs no lifespan.

        Cancellation: a session that has been opened, and whose client has no token yet, ends.
        """
        if scope["type"] != "http":
            raise ConfigurationError(
                f"LongPolling serves 'http' scopes; got {scope['type']!r}. Route to it in the 'http' application of a "
                f"ProtocolTypeRouter"
            )
        client = Client(scope, receive, send)
        others = connections_of("http")
        others[client] = trio.current_time()
        try:
            await Exchange(client, self.websocket, self._sessions()).serve()
        except ClientLeft:
            logger.debug("the client of %s left", describe(scope))
        except Exception as error:
            note_connection(error, scope)
            raise
        finally:
            del others[client]

    def _sessions(self) -> Sessions:
        lasting = current()
        if lasting is None:
            raise ConfigurationError(
                "long-polling needs the application's lifespan, in which its sessions live, and this server runs none. "
                "Serve a ProtocolTypeRouter, and no server option that turns the lifespan off; in a test use "
                "running_lifespan()"
            )
        sessions: Sessions = lasting.parts.setdefault(Sessions, Sessions(lasting))
        return sessions

"""An event stream as an ASGI application, beside consumers: without Django's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.http.response import HttpResponseBase, StreamingHttpResponse

from .. import _conf
from .._asgi.protocol import ASGIApplication, Receive, Scope, Send, note_connection
from .._asgi.responses import deny_websocket, respond_plainly
from .._connection.registry import connections_of
from .._http.bodiless import BodilessRequest
from .._http.client import Client, ClientLeft
from .._http.request_body import REFUSED, read_body, refusal
from .._http.response import send_whole, stream
from .._threads.database import request_thread
from ..exceptions import ConfigurationError

View = Callable[..., Awaitable[HttpResponseBase]]


def of(view: View) -> ASGIApplication:
    """The ASGI application of an async view."""

    async def event_stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await deny_websocket(receive, send)
            return
        if scope["type"] != "http":
            raise ConfigurationError(f"an event stream expects an 'http' scope; got {scope['type']!r}")
        client = Client(scope, receive, send)
        others = connections_of("http")
        others[client] = trio.current_time()
        try:
            await _serve(client, view)
        except ClientLeft:
            pass
        except Exception as error:
            note_connection(error, scope)
            raise
        finally:
            del others[client]
            client.request = None  # which refers to the client

    return event_stream


async def _serve(client: Client, view: View) -> None:
    try:
        if not client.has_no_body():
            (await read_body(client, _conf.get("MAX_BODY_SIZE"), _conf.get("BODY_TIMEOUT"))).close()
    except REFUSED as error:
        await respond_plainly(client.send, *refusal(error))
        return
    client.request = request = _Request(client.scope)
    route: Any = client.scope.get("url_route") or {"args": (), "kwargs": {}}
    with request_thread(client) as thread:
        try:
            response = await client.while_there(lambda: view(request, *route["args"], **route["kwargs"]))
        except PermissionDenied:
            await respond_plainly(client.send, 403, "Forbidden")
            return
        except SuspiciousOperation:  # such as too many parameters
            await respond_plainly(client.send, 400, "Bad request")
            return
        except Http404:
            await respond_plainly(client.send, 404, "Not found")
            return
        if isinstance(response, StreamingHttpResponse):
            await stream(client, response, thread, _conf.limits().send_timeout)
        else:
            await send_whole(client, response)


class _Request(BodilessRequest):
    """With the attributes that Django's middleware would add, if middleware for ASGI has put them into the scope."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        if "session" in scope:
            self.session = scope["session"]
        if "user" in scope:
            self.user = scope["user"]
            self.auser = self._auser
            if self.user.is_authenticated:
                self._cached_user = self.user  # by which close_user() finds the connection

    async def _auser(self) -> Any:
        return self.user

"""Django's HTTP side on Trio.

The rules:

- A sync view is one call to a thread: the request's whole synchronous chain (signals, middleware, view, rendering,
  closing) runs in it. The response is sent from the Trio thread.
- An async view runs on Trio, between two calls to a thread: one for the signal and the middleware's part before the
  view, one for the response. Neither is needed if all of that never waits; :mod:`trio_channels._http.inline` decides.
  The view is cancelled when the client leaves; a sync view runs to its end.
- All synchronous code of a request runs on one thread. The request holds that thread from its first call to its end.
  But as long as only code has run that leaves nothing on a thread, such as Django's own middleware, the request holds
  no thread between calls.
- A stream ends on the request's thread. A synchronous stream is also made there, see :mod:`trio_channels._http.parts`.
  A file needs nothing of the request and is read on any thread. All end when the client leaves.
- ``request_finished`` is sent once if ``request_started`` was, however the request ends.
- Tools may have replaced methods of Django's handlers: they are called as :mod:`trio_channels._http.hooked` says.
"""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from typing import IO, Any

import trio
from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    iscoroutinefunction,  # inspect's function fails for class-based views before Python 3.12
)
from django.conf import settings
from django.core import signals
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase, StreamingHttpResponse

from .. import _conf, _tracing
from .._asgi.foreign import NOT_TRIO
from .._asgi.mounting import enter
from .._asgi.protocol import Receive, Scope, Send, describe, note_connection
from .._asgi.responses import respond_plainly
from .._connection.registry import connections_of
from .._metrics import recording
from .._threads.affinity import keep_thread
from .._threads.database import request_thread, run_in_thread
from ..exceptions import ConfigurationError, WorkerPoolBusy
from .async_views import AsyncViewHandler
from .client import Client, ClientLeft
from .hooked import DJANGOS_CALL
from .middleware import all_are_neutral
from .recorded import ServedRequest
from .request_body import REFUSED, read_body, refusal
from .response import at_the_end, send_file, send_whole, stream

__all__ = ["DjangoHandler"]

logger = logging.getLogger("django.request")


class DjangoHandler(AsyncViewHandler):
    """The ASGI application for HTTP; made by :func:`trio_channels.asgi.get_asgi_application`.

    Attributes:
        request_class: the class of the requests that views get; a subclass of Django's.
    """

    _is_neutral = False

    def __repr__(self) -> str:
        return f"<DjangoHandler of {settings.ROOT_URLCONF}>"

    def load_middleware(self, is_async: bool = False) -> None:
        """Make the middleware of the settings. The first request for an async view makes the asynchronous chain."""
        super().load_middleware()
        self._is_neutral = all_are_neutral()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one request.

        Raises:
            ConfigurationError: the scope is not an HTTP scope, or the server does not run on Trio.

        Cancellation: a sync view that has begun is waited for, an async one is cancelled; the response is dropped.
        """
        if scope["type"] != "http":
            raise ConfigurationError(
                f"Django serves 'http' scopes; got {scope['type']!r}. Put a ProtocolTypeRouter before it"
            )
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(NOT_TRIO)
        if ASGIHandler.__call__ is DJANGOS_CALL:
            await self.handle(scope, receive, send)
            return
        # Inside another context Django's method opens none, which would hold the thread until the client has read.
        before = SyncToAsync.thread_sensitive_context.set(ThreadSensitiveContext())
        try:
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]
        finally:
            SyncToAsync.thread_sensitive_context.reset(before)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; as Django's method, called by ``__call__``. Cancellation: see there."""
        client = Client(scope, receive, send)
        client.path = scope["path"]
        if forced_or_root := get_script_prefix(scope):
            client.mount, path = enter(scope, forced_or_root)
            if path is not None:  # otherwise a proxy has removed the mount point
                client.path = path
        others = connections_of("http")
        others[client] = trio.current_time()
        try:
            if recording.recorder is None and _tracing.tracer is None:
                await self._serve(client)
            else:
                with ServedRequest(client):
                    await self._serve(client)
        except ClientLeft:
            logger.debug("the client of %s left", describe(scope))
        except Exception as error:
            if not isinstance(error, WorkerPoolBusy) or client.answered:
                note_connection(error, scope)
                raise
            logger.error("%s: answering 503", error)
            with suppress(ClientLeft):
                await respond_plainly(client.send, 503, "The server is busy.")
        finally:
            del others[client]
            client.request = None  # which refers to the client

    async def _serve(self, client: Client) -> None:
        try:
            body: IO[bytes] = io.BytesIO()
            if not client.has_no_body():
                body = await read_body(client, _conf.get("MAX_UPLOAD_SIZE"), _conf.get("BODY_TIMEOUT"))
        except REFUSED as error:
            await self._refuse(client, *refusal(error), error)
            return
        with body:  # the response closes it, on the thread; without a response it is closed here
            with request_thread(client) as thread:
                if self._calls_async_view(client):
                    response = await self._respond_async(client, body, thread)
                else:
                    # Django's own signals, in the call, care for the database connections.
                    response = await thread.run_sync(self._respond, client, body)
                if isinstance(response, StreamingHttpResponse) and not response.closed:
                    await stream(client, response, thread, _conf.limits().send_timeout)
                    return
            # The request has ended, so that it holds no thread while the client reads.
            if isinstance(response, FileResponse):
                await send_file(client, response)
            else:
                await send_whole(client, response)

    async def _refuse(self, client: Client, status: int, text: str, why: Exception) -> None:
        """Answer without a view. Django's signals are sent all the same, so that the request is counted."""
        logger.log(logging.WARNING if status < 500 else logging.ERROR, "%s: answering %d", why, status)
        await at_the_end(run_in_thread, self._signal_only, client.scope)
        await respond_plainly(client.send, status, text)
        with trio.move_on_after(_conf.limits().close_timeout):
            await client.drain()

    def _signal_only(self, scope: Scope) -> None:
        signals.request_started.send(sender=self.__class__, scope=scope)
        signals.request_finished.send(sender=self.__class__)

    def _respond(self, client: Client, body: IO[bytes]) -> HttpResponseBase:
        """On a thread: the whole synchronous chain. A streaming response is left open."""
        request = self._begin(client, body)
        if isinstance(request, HttpResponseBase):
            return request
        try:
            response: HttpResponseBase = self.get_response(request)
        except BaseException:
            # A cancellation, or the end of the process. There is no response whose close() would do this.
            self._abandon(request)
            raise
        if response.streaming and not (self._is_neutral and _was_async(request)):
            keep_thread()
        return self._prepared(response)


def _was_async(request: HttpRequest) -> bool:
    return request.resolver_match is not None and iscoroutinefunction(request.resolver_match.func)

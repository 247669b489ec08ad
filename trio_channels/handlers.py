"""Django's HTTP side on Trio: one request is one call to a worker thread.

A request's whole synchronous chain (signals, middleware, view, rendering, closing) runs in one hop, so that it costs
one, and sees one thread with its database connection from beginning to end. Then the response is sent from the loop,
without a thread. A streaming response keeps its thread: each part is one more call to it; an asynchronous iterator runs
on Trio.

An async view runs on Trio too, in the task of its request, while its worker thread waits for it. It and asynchronous
streams are cancelled when the client leaves; a sync view runs to its end. However a request ends, ``request_finished``
is sent once if ``request_started`` was.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import trio
from asgiref.sync import iscoroutinefunction  # that of inspect does not know class-based views before Python 3.12
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import FileResponse, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import set_script_prefix

from . import _conf
from ._asgi import DISCONNECTS, Message, Receive, Scope, Send
from ._connection import Connection
from ._refusal import respond_plainly
from ._supervise import supervise
from ._threads import Lease
from ._workers import refresh_connections, run_in_worker, worker_pool
from .exceptions import ConfigurationError, ConnectionClosed, RequestAborted, RequestBodyTooLarge
from .sync import async_to_sync, sync_to_async

__all__ = ["DjangoHandler"]

logger = logging.getLogger("django.request")

#: Bytes of a file that one call to the worker thread reads.
FILE_BLOCK = 256 * 1024


class _ClientLeft(BaseException):
    """An async view was cancelled; no middleware should take it for a failure of the view, and answer it."""


class DjangoHandler(BaseHandler):
    """The ASGI application for HTTP; made by :func:`trio_channels.asgi.get_asgi_application`."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=False)

    def __repr__(self) -> str:
        return f"<DjangoHandler of {settings.ROOT_URLCONF}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            ConfigurationError: the scope is not of HTTP.

        Cancellation: a view that has begun is waited for; then its response is closed and dropped.
        """
        if scope["type"] != "http":
            raise ConfigurationError(
                f"Django serves 'http' scopes; got {scope['type']!r}. Put a ProtocolTypeRouter before it"
            )
        connection = Connection(scope, receive, send, _conf.limits())
        await supervise(connection, lambda: self._serve(connection))

    async def _serve(self, connection: Connection) -> None:
        try:
            body = await _read_body(connection, _conf.get("MAX_UPLOAD_SIZE"))
        except RequestAborted:
            return
        except RequestBodyTooLarge as error:
            logger.warning("%s: answering 413", error)
            await respond_plainly(connection.send, 413, "The request body is too large.")
            return
        with body:  # the response closes it in the worker thread, unless the request never got one
            await self._answer(connection, body)

    async def _answer(self, connection: Connection, body: IO[bytes]) -> None:
        # Django's own signals, in the hops below, care for the database connections.
        async with worker_pool().lease() as lease:
            try:
                response = await lease.run_sync(self._respond, connection, body)
            except _ClientLeft:
                return
            if isinstance(response, StreamingHttpResponse):
                try:
                    await _send_stream(connection, lease, response)
                finally:
                    with trio.CancelScope(shield=True):
                        await lease.run_sync(response.close)
                return
        await _send_response(connection, response)

    def _respond(self, connection: Connection, body: IO[bytes]) -> HttpResponseBase:
        """In the worker thread: the whole synchronous chain. A response that streams is left open."""
        refresh_connections()
        set_script_prefix(get_script_prefix(connection.scope))
        signals.request_started.send(sender=self.__class__, scope=connection.scope)
        response: HttpResponseBase
        try:
            request = ASGIRequest(connection.scope, body)
        except UnicodeDecodeError:
            logger.warning("Bad Request (UnicodeDecodeError)", extra={"status_code": 400})
            response = HttpResponseBadRequest()
            body.close()
        except RequestDataTooBig:
            response = HttpResponse("413 Payload too large", status=413)
            body.close()
        else:
            request.trio_connection = connection  # type: ignore[attr-defined]
            response = self._response_to(request)
        if isinstance(response, FileResponse):
            response.block_size = FILE_BLOCK
        if not response.streaming:
            response.close()
        return response

    def _response_to(self, request: ASGIRequest) -> HttpResponseBase:
        try:
            response: HttpResponseBase = self.get_response(request)
        except BaseException:
            # Cancelled, or on its way out of the process: there is no response whose close() would do this.
            request.close()
            signals.request_finished.send(sender=self.__class__)
            raise
        return response

    # Django's own handler calls async functions through asgiref, which starts asyncio in the thread; ours go to Trio.

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The view as the synchronous chain calls it."""
        atomic: Callable[..., Any] = super().make_view_atomic(view)
        return async_to_sync(_until_client_leaves(atomic)) if iscoroutinefunction(atomic) else atomic

    def adapt_method_mode(
        self,
        is_async: bool,
        method: Callable[..., Any],
        method_is_async: bool | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """A middleware as its neighbour calls it."""
        if method_is_async is None:
            method_is_async = iscoroutinefunction(method)
        if is_async and not method_is_async:
            return sync_to_async(method)
        if method_is_async and not is_async:
            return async_to_sync(method)
        return method


async def _read_body(connection: Connection, limit: int) -> IO[bytes]:
    """The request's body as a file: in memory up to ``FILE_UPLOAD_MAX_MEMORY_SIZE``, on disk beyond.

    Raises:
        RequestAborted: the client left first.
        RequestBodyTooLarge: it is longer than `limit` bytes, counted.
    """
    in_memory = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    # The request owns it, and closes it with the response.
    body: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
        max_size=in_memory, mode="w+b", dir=settings.FILE_UPLOAD_TEMP_DIR
    )
    size = 0
    more = True
    try:
        while more:
            event = await _next_event(connection)
            more = event.get("more_body", False)
            part = event.get("body", b"")
            size += len(part)
            if size > limit:
                raise RequestBodyTooLarge(
                    f"the request body is longer than {limit} bytes (MAX_UPLOAD_SIZE); got at least {size}"
                )
            if size > in_memory:
                await run_in_worker(body.write, part)
            else:
                body.write(part)
    except BaseException:
        body.close()
        raise
    body.seek(0)
    return body


async def _next_event(connection: Connection) -> Message:
    while (event := connection.take_event()) is None:
        await connection.bell.wait()
    if event["type"] in DISCONNECTS:
        raise RequestAborted("the client left before its request had been read")
    return event


def _until_client_leaves(view: Callable[..., Any]) -> Callable[..., Any]:
    # Without functools.wraps, which would copy the mark of a class-based view that says it is async to what is not.
    async def cancellable(request: Any, *args: Any, **kwargs: Any) -> Any:
        with _cancelled_when_client_leaves(request.trio_connection):
            return await view(request, *args, **kwargs)
        raise _ClientLeft

    return cancellable


@contextmanager
def _cancelled_when_client_leaves(connection: Connection) -> Iterator[None]:
    with trio.CancelScope() as scope:
        if connection.closed is not None:
            scope.cancel()
        connection.on_closed = scope.cancel
        try:
            yield
        finally:
            connection.on_closed = None


def _start(response: HttpResponseBase) -> Message:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    headers += [
        (b"set-cookie", cookie.output(header="").encode("ascii").strip()) for cookie in response.cookies.values()
    ]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def _send_response(connection: Connection, response: HttpResponseBase) -> None:
    content: bytes = response.content  # type: ignore[attr-defined]
    await connection.send(_start(response))
    await connection.send({"type": "http.response.body", "body": content})


async def _send_stream(connection: Connection, lease: Lease, response: StreamingHttpResponse) -> None:
    try:
        await connection.send(_start(response))
        if response.is_async:
            with _cancelled_when_client_leaves(connection):
                await _send_async_parts(connection, response)
        else:
            parts: Iterator[bytes] = iter(response)
            while part := await lease.run_sync(_next_part, parts):
                await connection.send({"type": "http.response.body", "body": part, "more_body": True})
        await connection.send({"type": "http.response.body"})
    except ConnectionClosed:
        logger.debug("the client left while a response was streamed to it")


async def _send_async_parts(connection: Connection, response: StreamingHttpResponse) -> None:
    # Not by iterating over the response, which wraps this twice in generators that do not close it.
    parts = response._iterator  # type: ignore[attr-defined]
    try:
        async for part in parts:
            await connection.send({"type": "http.response.body", "body": response.make_bytes(part), "more_body": True})
    finally:
        if hasattr(parts, "aclose"):
            await parts.aclose()


def _next_part(parts: Iterator[bytes]) -> bytes:
    """The next part that is not empty, or nothing at the end."""
    return next(filter(None, parts), b"")

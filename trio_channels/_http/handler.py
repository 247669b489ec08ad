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
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar, TypeVarTuple

import trio
from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    iscoroutinefunction,  # inspect's function fails for class-based views before Python 3.12
)
from django.conf import settings
from django.core import signals
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import Resolver404, ResolverMatch, set_script_prefix, set_urlconf
from django.utils.log import log_response

from .. import _conf, _tracing
from .._asgi.foreign import NOT_TRIO
from .._asgi.mounting import enter
from .._asgi.protocol import Receive, Scope, Send, describe, note_connection
from .._asgi.responses import respond_plainly
from .._connection.registry import connections_of
from .._metrics import recording
from .._threads.affinity import Affinity, keep_thread
from .._threads.database import request_thread, run_in_thread
from .._threads.neutral import requests_are_neutral
from ..exceptions import ConfigurationError, WorkerPoolBusy
from ..sync import async_to_sync, sync_to_async
from .client import Client, ClientLeft, while_client_is_there, with_one_cookie_header
from .hooked import DJANGOS_CALL, DJANGOS_GET_RESPONSE_ASYNC, HookedHandler, is_bridged
from .inline import SAFE_METHODS, django_never_waits
from .middleware import Pending, Section, all_are_neutral, all_can_be_async, answering, load_async
from .recorded import ServedRequest
from .request_body import REFUSED, read_body, refusal
from .resolving import resolve
from .response import FILE_BLOCK, at_the_end, detach_file, note_source, send_file, send_whole, stream
from .static_files import warn_of_static_files

__all__ = ["DjangoHandler"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("django.request")


class DjangoHandler(ASGIHandler):
    """The ASGI application for HTTP; made by :func:`trio_channels.asgi.get_asgi_application`.

    Attributes:
        request_class: the class of the requests that views get; a subclass of Django's.
    """

    request_class: type[ASGIRequest] = ASGIRequest

    _is_neutral = False

    def __repr__(self) -> str:
        return f"<DjangoHandler of {settings.ROOT_URLCONF}>"

    def load_middleware(self, is_async: bool = False) -> None:
        """Make the middleware of the settings. The first request for an async view makes the asynchronous chain."""
        super().load_middleware()
        self._has_async_chain = all_can_be_async()
        self._is_neutral = all_are_neutral()
        self._async_chain: Section | None = None
        self._async_chain_lock = threading.Lock()

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

    # -- sync views -----------------------------------------------------------------------------------------------

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

    # -- async views ----------------------------------------------------------------------------------------------

    def _calls_async_view(self, client: Client) -> bool:
        """Whether the path leads to an async view. A guess: middleware may change it; a wrong one costs time."""
        if not self._has_async_chain:
            return False
        try:
            client.resolved = resolve(client.path, getattr(self.request_class, "urlconf", None))
        except Exception:  # 404, or a path converter's: the chain raises it again
            return False
        return iscoroutinefunction(client.resolved.match.func)

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """The view and its arguments; the URL is not resolved again if nothing has changed since the request came."""
        client: Client = request.trio_client  # type: ignore[attr-defined]
        if client.resolved is None or not client.resolved.holds_for(request):
            try:
                match: ResolverMatch = super().resolve_request(request)
            except Resolver404:
                warn_of_static_files(request.path)
                raise
        else:
            if client.resolved.urlconf is not None:
                set_urlconf(client.resolved.urlconf)
            match = request.resolver_match = client.resolved.match
        client.route = match.route
        return match

    async def _respond_async(self, client: Client, body: IO[bytes], thread: Affinity) -> HttpResponseBase:
        if BaseHandler.get_response_async is not DJANGOS_GET_RESPONSE_ASYNC and is_bridged():
            return await self._respond_hooked(client, body, thread)
        await trio.lowlevel.checkpoint_if_cancelled()
        section, request, entered = self._enter_inline(client, body)
        inline = entered is not None
        if entered is None:
            section, request, entered = await self._enter_on(thread, client, body, request)
        if not isinstance(entered, Pending):
            return entered
        try:
            result = await client.while_there(section.proceed, request, entered)
        except BaseException:
            await at_the_end(thread.run_sync, self._abandon, request)
            raise
        if inline and thread.lease is None and self._never_waits(section):
            response = self._leave_inline(section, request, result)
            if response is not None:
                return response
        return await at_the_end(thread.run_sync, self._leave, section, request, entered, result)

    async def _respond_hooked(self, client: Client, body: IO[bytes], thread: Affinity) -> HttpResponseBase:
        """Respond through Django's get_response_async: a tool has replaced it."""
        request = await thread.run_sync(self._begin, client, body)
        if isinstance(request, HttpResponseBase):
            return request
        try:
            handler = HookedHandler(self._section().respond)
            response = await client.while_there(handler.get_response_async, request)
        except BaseException:
            await at_the_end(thread.run_sync, self._abandon, request)
            raise
        return await at_the_end(thread.run_sync, self._prepared, response)

    def _enter_inline(self, client: Client, body: IO[bytes]) -> tuple[Any, Any, HttpResponseBase | Pending | None]:
        """As :meth:`_enter`, on the Trio thread; without a result a thread must go on, with the request if any."""
        section = self._async_chain
        if not (
            section is not None
            and client.scope["method"] in SAFE_METHODS
            and client.scope.get("query_string", b"").isascii()  # Django logs others
            and type(body) is io.BytesIO  # one on the disk is closed on a thread
            and self._never_waits(section)
        ):
            return section, None, None
        request = self._begin(client, body)
        if isinstance(request, HttpResponseBase):
            return section, None, request
        try:
            set_urlconf(settings.ROOT_URLCONF)
            return section, request, section.enter_inline(request)
        except BaseException:
            self._abandon(request)
            raise

    def _never_waits(self, section: Section) -> bool:
        """Whether all that is called around the view is Django's own, and never waits."""
        is_ours = self.request_class is ASGIRequest and type(self).__module__.startswith("trio_channels.")
        return is_ours and section.never_waits() and django_never_waits()

    def _leave_inline(self, section: Section, request: ASGIRequest, result: Any) -> HttpResponseBase | None:
        """As :meth:`_leave`, on the Trio thread; None if a thread must do it."""
        try:
            response = section.leave_inline(request, result)
            if response is None:
                return None
            response = self._ended(request, response)
        except BaseException:
            self._abandon(request)
            raise
        return self._prepared(response)

    async def _enter_on(
        self, thread: Affinity, client: Client, body: IO[bytes], request: ASGIRequest | None
    ) -> tuple[Section, Any, HttpResponseBase | Pending]:
        """Do everything before the async view on a thread; a `request` has begun on the Trio thread."""
        ran = False

        def enter() -> tuple[Section, Any, HttpResponseBase | Pending]:
            nonlocal ran
            ran = True
            return self._enter(client, body, request)

        try:
            return await thread.run_sync(enter)
        except BaseException:  # if it has not run, no thread was free, or the request was cancelled meanwhile
            if request is not None and not ran:
                self._abandon(request)
            raise

    def _enter(
        self, client: Client, body: IO[bytes], request: Any = None
    ) -> tuple[Section, Any, HttpResponseBase | Pending]:
        """On a thread: everything before the async view."""
        section = self._section()
        if request is None:
            request = self._begin(client, body)
        if isinstance(request, HttpResponseBase):
            return section, None, request
        try:
            set_urlconf(settings.ROOT_URLCONF)
            entered = section.enter(request)
            if not isinstance(entered, Pending):
                entered = self._ended(request, entered)
        except BaseException:
            self._abandon(request)
            raise
        return section, request, entered if isinstance(entered, Pending) else self._prepared(entered)

    def _leave(self, section: Section, request: ASGIRequest, entered: Pending, result: Any) -> HttpResponseBase:
        """On a thread: everything after the async view."""
        try:
            response = self._ended(request, section.leave(request, entered, result))
        except BaseException:
            self._abandon(request)
            raise
        return self._prepared(response)

    def _section(self) -> Section:
        with self._async_chain_lock:
            if self._async_chain is None:
                self._async_chain = load_async(self)
            return self._async_chain

    def _ended(self, request: ASGIRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Treat the chain's response as Django's get_response() does."""
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]
        if response.status_code >= 400:
            log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)  # type: ignore[arg-type]
        return response

    # -- both, on a thread ----------------------------------------------------------------------------------------

    def _begin(self, client: Client, body: IO[bytes]) -> ASGIRequest | HttpResponseBase:
        """Announce and make the request; return the response instead if the request is malformed."""
        if not requests_are_neutral():
            keep_thread()
        set_script_prefix(client.mount)
        signals.request_started.send(sender=self.__class__, scope=client.scope)
        request: Any
        refusal: Any
        request, refusal = self.create_request(with_one_cookie_header(client.scope), body)
        if request is None:
            body.close()
            return self._prepared(refusal)
        if request.script_name:  # Django does not look where a word ends, nor for a slash
            request.script_name = request.META["SCRIPT_NAME"] = client.mount
            request.path_info = request.META["PATH_INFO"] = client.path
        request.trio_client = client
        client.request = request
        return request  # type: ignore[no-any-return]

    def _prepared(self, response: HttpResponseBase) -> HttpResponseBase:
        """Close a response that needs nothing more of the application; a stream is left open."""
        response._handler_class = self.__class__  # type: ignore[attr-defined]
        if isinstance(response, FileResponse):
            response.block_size = FILE_BLOCK
        if not response.streaming or (isinstance(response, FileResponse) and detach_file(response)):
            response.close()
        return response

    def _abandon(self, request: ASGIRequest) -> None:
        """End a request that has no response whose close() would do this."""
        request.close()
        signals.request_finished.send(sender=self.__class__)

    # -- called by Django's chain; Django's own methods use asgiref, which starts asyncio in the thread --------------

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The view as the synchronous chain calls it."""
        atomic: Callable[..., Any] = super().make_view_atomic(view)
        return async_to_sync(while_client_is_there(atomic)) if iscoroutinefunction(atomic) else atomic

    def adapt_method_mode(
        self,
        is_async: bool,
        method: Callable[..., Any],
        method_is_async: bool | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """A middleware, or a method of one, as its neighbour calls it."""
        if method_is_async is None:
            method_is_async = iscoroutinefunction(method)
        elif method_is_async:  # from Django's convert_exception_to_response(), which uses asgiref
            method = answering(getattr(method, "__wrapped__", method))
        if is_async == method_is_async:
            return method
        if debug:
            logger.debug("%s handler adapted for %s.", "Asynchronous" if method_is_async else "Synchronous", name)
        return sync_to_async(method) if is_async else async_to_sync(method)

    def check_response(self, response: Any, callback: Any, name: str | None = None) -> None:
        """Raise ValueError unless a view or a hook has returned a response."""
        super().check_response(response, callback, name)
        if isinstance(response, StreamingHttpResponse):
            note_source(response)


def _was_async(request: HttpRequest) -> bool:
    return request.resolver_match is not None and iscoroutinefunction(request.resolver_match.func)

"""Django's handler on Trio: how a request begins and ends, and the methods that Django's chain calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import IO, Any

from asgiref.sync import iscoroutinefunction  # inspect's function fails for class-based views before Python 3.12
from django.core import signals
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import Resolver404, ResolverMatch, set_script_prefix, set_urlconf
from django.utils.log import log_response

from .._threads.affinity import keep_thread
from .._threads.neutral import requests_are_neutral
from ..sync import async_to_sync, sync_to_async
from .client import Client, while_client_is_there, with_one_cookie_header
from .middleware import answering
from .response import FILE_BLOCK, detach_file, note_source
from .static_files import warn_of_static_files

logger = logging.getLogger("django.request")


class TrioHandler(ASGIHandler):
    """What sync and async views have in common."""

    request_class: type[ASGIRequest] = ASGIRequest

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

    def _ended(self, request: ASGIRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Treat the chain's response as Django's get_response() does."""
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]
        if response.status_code >= 400:
            log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)  # type: ignore[arg-type]
        return response

    # -- called by Django's chain; Django's own methods use asgiref, which starts asyncio in the thread --------------

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

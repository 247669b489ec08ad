"""Async views: they run on Trio, between two calls to a thread that make the request and its response.

The rules are those of :mod:`trio_channels._http.handler`.
"""

from __future__ import annotations

import io
import threading
from typing import IO, Any

import trio
from asgiref.sync import iscoroutinefunction  # inspect's function fails for class-based views before Python 3.12
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http.response import HttpResponseBase
from django.urls import set_urlconf

from .._threads.affinity import Affinity
from .base import TrioHandler
from .client import Client
from .hooked import DJANGOS_GET_RESPONSE_ASYNC, HookedHandler, is_bridged
from .inline import SAFE_METHODS, django_never_waits
from .middleware import Pending, Section, all_can_be_async, load_async
from .resolving import resolve
from .response import at_the_end


class AsyncViewHandler(TrioHandler):
    """Responds with async views, through a chain of middleware that the first request for one makes."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Make the middleware of the settings. The first request for an async view makes the asynchronous chain."""
        super().load_middleware()
        self._has_async_chain = all_can_be_async()
        self._async_chain: Section | None = None
        self._async_chain_lock = threading.Lock()

    def _calls_async_view(self, client: Client) -> bool:
        """Whether the path leads to an async view. A guess: middleware may change it; a wrong one costs time."""
        if not self._has_async_chain:
            return False
        try:
            client.resolved = resolve(client.path, getattr(self.request_class, "urlconf", None))
        except Exception:  # 404, or a path converter's: the chain raises it again
            return False
        return iscoroutinefunction(client.resolved.match.func)

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

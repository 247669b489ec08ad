"""Static files in development, on Trio; used by ``runserver`` and the live servers of tests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin
from django.core.handlers import exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ._asgi.protocol import ASGIApplication, Receive, Scope, Send
from ._http.client import Client
from ._http.handler import DjangoHandler
from ._http.ranges import with_range

__all__ = ["StaticFilesHandler"]


class StaticFilesHandler(StaticFilesHandlerMixin, DjangoHandler):
    """An ASGI application that serves the files below ``STATIC_URL`` with the finders of ``staticfiles``.

    For development and tests only: each request searches for its file. A ``Range`` is answered with that part of the
    file (206), or with 416 if the file has none of it. The whole file is sent for several ranges in one request, and to
    any other method than GET.

    Args:
        application: serves all other paths and scopes.
    """

    def __init__(self, application: ASGIApplication) -> None:
        self.application: Any = application
        self.base_url = urlparse(self.get_base_url())
        super().__init__()

    def __repr__(self) -> str:
        return f"<StaticFilesHandler of {self.base_url.path} before {self.application!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a static file, or call the application. Cancellation: a search that has begun is completed."""
        if scope["type"] == "http" and self._should_handle(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    def load_middleware(self, is_async: bool = False) -> None:
        """Load no middleware: the application has its own."""

    def _calls_async_view(self, client: Client) -> bool:
        return False

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """On a thread: the file's response, or an error's."""
        response: Any
        try:
            response = with_range(request, self.serve(request))
        except Exception as error:
            response = exception.response_for_exception(request, error)
        response._resource_closers.append(request.close)
        return response  # type: ignore[no-any-return]

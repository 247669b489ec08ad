"""Methods of Django's handlers that a tool may have replaced.

Tools that watch requests, such as Sentry's and Elastic's, replace methods of Django's classes:

- ``ASGIHandler.__call__`` and ``ASGIHandler.create_request``,
- ``BaseHandler.load_middleware``, ``get_response`` and ``make_view_atomic``,
- ``BaseHandler.get_response_async``,
- functions of the modules ``django.core.handlers.base`` and ``.exception``.

Our handler inherits them, and calls those that need no asyncio. It looks each function up in its module at every call:
a tool may be set up at any time. Django's own ``__call__`` and ``get_response_async`` cost a context and a thread hop
that nobody needs, so that they are called only when they are not Django's any more.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any

from asgiref.sync import SyncToAsync
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase


def djangos_method(owner: type, name: str) -> object:
    """The method, if it is still Django's: its code comes from the file of its class."""
    method = getattr(owner, name)
    own_file = sys.modules[owner.__module__].__file__
    return method if type(method) is FunctionType and method.__code__.co_filename == own_file else None


#: Django's own methods; None for one that was replaced before this module was loaded.
DJANGOS_CALL = djangos_method(ASGIHandler, "__call__")
DJANGOS_GET_RESPONSE_ASYNC = djangos_method(BaseHandler, "get_response_async")


def is_bridged() -> bool:
    """Whether the asgiref bridge is installed: Django's ``get_response_async`` needs it, or asyncio."""
    return hasattr(SyncToAsync.__call__, "_trio_channels_bridge")  # set by trio_channels.bridge, which imports this


class HookedHandler(BaseHandler):
    """Lets Django's ``get_response_async``, and the tool that has replaced it, call a chain of ours."""

    def __init__(self, chain: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        super().__init__()
        self._middleware_chain: Any = chain

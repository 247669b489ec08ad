"""The same site; Sentry is set up after the handler of the requests was made."""

from __future__ import annotations

from .sentry import urlpatterns, websocket_urlpatterns
from .sentry_set_up import init

__all__ = ["urlpatterns", "websocket_urlpatterns"]

init()

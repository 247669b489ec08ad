"""Decides whether Django's code around an async view runs on the Trio thread: it may if it never waits.

The middleware of a new project reads a few headers and sets others. That takes less time than the two ways to a thread
and back. The rules:

- All of it is Django's own, as Django has it: middleware, handler, receivers of the request's signals, session and
  messages. The request's method is one that needs no CSRF token.
- No database connection is open on the Trio thread: Django's receivers would close it, in the middle of a test.
- All of this is asked again after the view: meanwhile a tool may have come, or a receiver.
- All else is for a thread, as ever: a response that a middleware gives, an exception, a status that is logged,
  a session or messages that are to be stored, rendering, streams, a response with something of its own to close, and
  the end of a request that holds a thread. The thread calls all of the middleware then, also what has been called here:
  it may be called twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from .. import _conf
from .._threads.database import has_open_connections
from .._threads.neutral import requests_are_neutral
from .hooked import djangos_method

#: Django's middleware that never waits, if the session and the messages need not be stored.
_NEVER_WAITING = frozenset(
    (
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.security.SecurityMiddleware",
    )
)
#: Methods of Django's that its handler and its middleware call around each view, with their classes.
_CALLED = (
    (ASGIHandler, "create_request"),
    *((BaseHandler, name) for name in ("load_middleware", "resolve_request", "make_view_atomic", "check_response")),
    *((HttpRequest, name) for name in ("get_host", "_get_raw_host", "get_port", "is_secure", "close")),
    *((ASGIRequest, name) for name in ("__init__", "_get_scheme")),
    (HttpResponseBase, "close"),
)

#: Classes, with names of their methods, and Django's own methods of these names.
Methods: TypeAlias = "list[tuple[type, str, object]]"

#: Those for which CsrfViewMiddleware does nothing but set a cookie.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")


def methods_that_never_wait(middlewares: Iterable[object]) -> Methods | None:
    """The methods of these middlewares, and those around them; None if one of them is not among those that never wait.

    A tool that has replaced one makes :func:`are_djangos` say no; it may do so at any time.
    """
    called = list(_CALLED)
    for middleware in middlewares:
        kind: Any = type(middleware)
        if f"{kind.__module__}.{kind.__qualname__}" not in _NEVER_WAITING:
            return None
        store = getattr(middleware, "SessionStore", None)
        if store is not None and not store.__module__.startswith("django."):
            return None
        called += (
            (kind, name) for name, value in vars(kind).items() if callable(value) and not isinstance(value, type)
        )
    return [(kind, name, djangos_method(kind, name)) for kind, name in called]


def are_djangos(methods: Methods) -> bool:
    """Whether the methods are still Django's."""
    for kind, name, djangos in methods:  # noqa: SIM110  # each request asks: no generator
        if getattr(kind, name) is not djangos:
            return False
    return True


def django_never_waits() -> bool:
    """Whether the code that Django runs around each view never waits: signals, sessions, messages, settings."""
    return (
        requests_are_neutral()
        and not _conf.get("THREAD_NEUTRAL")  # such a package leaves nothing on a thread, but may wait
        and not settings.CSRF_USE_SESSIONS
        and settings.SIGNING_BACKEND.startswith("django.")
        and type(settings.ALLOWED_HOSTS) in (list, tuple)
        and all(type(agent) is re.Pattern for agent in settings.DISALLOWED_USER_AGENTS)
        and not has_open_connections()
    )


def response_never_waits(request: HttpRequest, response: Any) -> bool:
    """Whether the middleware need not wait with this response of the view."""
    session, messages = getattr(request, "session", None), getattr(request, "_messages", None)
    return (
        isinstance(response, HttpResponse)
        and type(response).__module__ == HttpResponseBase.__module__
        and not hasattr(response, "render")
        and "close" not in vars(response)
        and response.status_code < 400
        and not response._resource_closers  # type: ignore[attr-defined]
        and (session is None or not (_is_strange(session) or session.modified or settings.SESSION_SAVE_EVERY_REQUEST))
        and (messages is None or not (_is_strange(messages) or messages.used or messages.added_new))
    )


def _is_strange(thing: object) -> bool:
    """Whether the view has put something of its own in the place of Django's."""
    return not type(thing).__module__.startswith("django.contrib.")

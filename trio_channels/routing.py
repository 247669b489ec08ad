"""Routers: ASGI applications that choose another one by scope type, URL path or channel name."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

import trio
from django.conf import settings
from django.urls import URLPattern, URLResolver, set_script_prefix
from django.urls.resolvers import RegexPattern, RoutePattern

from ._asgi.foreign import NOT_TRIO, refuse_foreign, refuse_other_callables
from ._asgi.foreign_calls import explain
from ._asgi.mounting import enter
from ._asgi.protocol import ASGIApplication, Receive, Scope, Send, address, note_connection
from ._asgi.responses import deny_websocket, respond_plainly
from ._asgi.shortcut import note_shortcut, shortcut
from .exceptions import ConfigurationError, NoRouteFound
from .lifespan import Run, as_application, layers_only
from .server.hardening import harden_hypercorn

__all__ = ["ChannelNameRouter", "ProtocolTypeRouter", "URLRouter", "get_default_application"]

logger = logging.getLogger("trio_channels.routing")

_Pattern = RoutePattern | RegexPattern


def get_default_application() -> ASGIApplication:
    """The application that the setting ``ASGI_APPLICATION`` names.

    Raises:
        ConfigurationError: there is no such setting, nothing at its path, or something that is no application on Trio.
        Exception: an error inside the module.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(path, str) or "." not in path:
        raise ConfigurationError(f"ASGI_APPLICATION must be a path such as 'mysite.asgi.application'; got {path!r}")
    module_name, _, attribute = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        # An import inside the module that fails is told as it is: the setting is right.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"ASGI_APPLICATION {path!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigurationError(
            f"ASGI_APPLICATION {path!r} cannot be imported: the module {module_name!r} has no {attribute!r}"
        )
    application: ASGIApplication = getattr(module, attribute)
    _refuse(application)
    return application


class ProtocolTypeRouter:
    """Chooses by the scope's ``type``.

    Args:
        application_mapping: scope type -> ASGI application. ``lifespan`` may be an async context manager without
            arguments, see :func:`trio_channels.lifespan.lifespan`. With it, and without such an entry, the router opens
            and closes the configured channel layers.

    Raises:
        ConfigurationError: an application is a consumer class, whose ``as_asgi()`` you route to, or needs asyncio; the
            entry ``lifespan`` is neither an application nor such a context manager.

    A request without an application is answered with 404, a WebSocket is denied. Any other scope raises NoRouteFound.
    """

    def __init__(self, application_mapping: Mapping[str, ASGIApplication | Run]) -> None:
        harden_hypercorn()
        refuse_foreign(*application_mapping.values())
        _refuse(*(it for kind, it in application_mapping.items() if kind != "lifespan"))  # it may take no arguments
        given: Mapping[str, Any] = {"lifespan": layers_only, **application_mapping}
        self.application_mapping: dict[str, ASGIApplication] = {**given, "lifespan": as_application(given["lifespan"])}

    def __repr__(self) -> str:
        return f"<ProtocolTypeRouter for {', '.join(self.application_mapping)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application for the scope's type. Cancellation: the application's."""
        if scope["type"] != "lifespan" and not trio.lowlevel.in_trio_run():
            raise ConfigurationError(NOT_TRIO)  # some servers have no lifespan, in which to report it at start-up
        application = self.application_mapping.get(scope["type"])
        if application is None:
            await _no_route(f"no application for the scope type {scope['type']!r}", scope, receive, send)
            return None
        try:
            return await shortcut(application)(scope, receive, send)
        except Exception as error:
            if scope["type"] == "lifespan":
                explain(error)
            else:
                note_connection(error, scope)  # errors of consumers have the note already, those of middleware do not
            raise


#: The routes that a log line names at most.
_SHOWN_ROUTES = 8


class _Route(NamedTuple):
    """One line of a router's table; `inner` holds the routes of an ``include()``, `begin` starts a consumer."""

    pattern: _Pattern
    application: ASGIApplication | None
    defaults: dict[str, Any]
    inner: tuple[_Route, ...] = ()
    begin: ASGIApplication | None = None


class _Match(NamedTuple):
    application: ASGIApplication
    begin: ASGIApplication | None
    pattern: str
    remaining: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _NoInnerRoute(NoRouteFound):
    """A nested router had no route; the outer one goes on with its next."""


class URLRouter:
    """Chooses by the path, with Django's ``path()``, ``re_path()`` and ``include()``.

    Args:
        routes: as in ``urlpatterns``, with ASGI applications in place of views. A route to another URLRouter matches a
            prefix of the path, also through middleware that keeps the router as ``inner`` or ``application``.

    Raises:
        ConfigurationError: a route is of another kind, or leads to a consumer class or an application for asyncio.

    The application finds ``url_route`` (``args``, ``kwargs``), ``url_pattern`` (the pattern that matched, a str) and
    ``path_remaining`` in its scope. If no route of a
    nested router matches, the outer one tries its next route. The outermost then answers 404 or denies the WebSocket,
    with one log line.
    """

    _path_routing = True

    def __init__(self, routes: Iterable[URLPattern | URLResolver]) -> None:
        self.routes = list(routes)
        self._table = tuple(_compiled(self.routes))

    @cached_property
    def _known(self) -> str:
        known = [repr(pattern) for pattern in islice(_patterns(self._table), _SHOWN_ROUTES + 1)]
        return ", ".join([*known[:_SHOWN_ROUTES], *(["..."] if len(known) > _SHOWN_ROUTES else [])]) or "none"

    def __repr__(self) -> str:
        return f"<URLRouter {[str(route.pattern) for route in self._table]}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application of the first route that matches. Cancellation: the application's."""
        return await self._begin(scope, receive, send)

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        nested = "path_remaining" in scope
        path = scope["path_remaining"] if nested else _enter_mount_point(scope)
        if path is None:
            forced = f"FORCE_SCRIPT_NAME ({settings.FORCE_SCRIPT_NAME!r})"
            why = f"the path {scope['path']!r} is not below {forced}, and the server has no root_path"
            return _no_route(why, scope, receive, send)
        match = self._find(scope, path, 0)
        if match is not None and match.begin is not None:  # a consumer, which leads to no other router
            return match.begin(_inner_scope(scope, match), receive, send)
        return self._try_each(match, scope, path, receive, send)

    async def _try_each(self, match: _Match | None, scope: Scope, path: str, receive: Receive, send: Send) -> Any:
        # Not in a loop over the matches: each open WebSocket would keep their generator, and its match.
        tried = 0
        while match is not None:
            begin, inner = shortcut(match.application), _inner_scope(scope, match)
            match = None  # or each open WebSocket would keep it
            try:
                return await begin(inner, receive, send)
            except _NoInnerRoute:
                tried += 1
                match = self._find(scope, path, tried)
        if "path_remaining" in scope:
            raise _NoInnerRoute(f"no route for {path!r}")
        await _no_route(f"no route for the path {scope.get('path')!r} among {self._known}", scope, receive, send)
        return None

    def _find(self, scope: Scope, path: str, number: int) -> _Match | None:
        """The match with this number; None if there are not so many."""
        outer = scope.get("url_pattern", "") if "path_remaining" in scope else ""
        return next(islice(_matches(self._table, outer, path.lstrip("/"), (), {}), number, None), None)


note_shortcut(URLRouter.__call__, URLRouter._begin)


class ChannelNameRouter:
    """Chooses by the channel name, for the ``channel`` scopes of workers.

    Args:
        application_mapping: channel name -> ASGI application.

    Raises:
        ConfigurationError: an application is a consumer class, whose ``as_asgi()`` you route to, or needs asyncio.
    """

    def __init__(self, application_mapping: Mapping[str, ASGIApplication]) -> None:
        self.application_mapping = dict(application_mapping)
        _refuse(*application_mapping.values())

    def __repr__(self) -> str:
        return f"<ChannelNameRouter for {', '.join(self.application_mapping)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application for the scope's channel. Cancellation: the application's."""
        if "channel" not in scope:
            raise NoRouteFound(f"a ChannelNameRouter routes 'channel' scopes; got {scope['type']!r}")
        return await self.application_for(scope["channel"])(scope, receive, send)

    def application_for(self, channel: str) -> ASGIApplication:
        """The application for a channel. Raises NoRouteFound if the mapping has no entry for it."""
        application = self.application_mapping.get(channel)
        if application is None:
            known = ", ".join(map(repr, self.application_mapping)) or "none"
            raise NoRouteFound(f"no application for the channel {channel!r}; known: {known}")
        return application


def check_channel_routes(application: ASGIApplication, channels: Iterable[str]) -> None:
    """Raise an error, before a worker starts, if an application's outer routers do not route the worker's channels."""
    if isinstance(application, ProtocolTypeRouter):
        if "channel" not in application.application_mapping:
            raise ConfigurationError(
                f"{application!r} has no application for the scope type 'channel', which workers need: give its "
                f"mapping a line such as \"channel\": ChannelNameRouter({{'thumbnails': ThumbnailConsumer.as_asgi()}})"
            )
        application = application.application_mapping["channel"]
    if isinstance(application, ChannelNameRouter):
        for channel in channels:
            application.application_for(channel)


def _refuse(*applications: object) -> None:
    refuse_foreign(*applications)
    refuse_other_callables(*applications)


def _compiled(routes: Sequence[URLPattern | URLResolver]) -> Iterator[_Route]:
    for route in routes:
        pattern = getattr(route, "pattern", None)
        if not isinstance(pattern, RoutePattern | RegexPattern):
            raise ConfigurationError(f"a URLRouter takes path(), re_path() and include(); got {route!r}")
        if isinstance(route, URLResolver):
            yield _Route(pattern, None, route.default_kwargs, tuple(_compiled(route.url_patterns)))
        else:
            _refuse(route.callback)
            if _router_behind(route.callback) is not None:
                pattern = type(pattern)(str(pattern), pattern.name, is_endpoint=False)
            begin = shortcut(route.callback) if _is_consumer(route.callback) else None
            yield _Route(pattern, route.callback, route.default_args, begin=begin)


def _is_consumer(application: Any) -> bool:
    """Whether an application is that of a consumer, and not a decorator's around it, which seems to be one."""
    return hasattr(application, "consumer_class") and shortcut(application) is not application


def _router_behind(application: Any) -> Any:
    """The router to which an application leads, itself or through middleware; None if there is none."""
    seen: list[Any] = []
    while application is not None and application not in seen:
        if getattr(application, "_path_routing", False) is True:
            return application
        seen.append(application)
        application = getattr(application, "inner", None) or getattr(application, "application", None)
    return None


def _patterns(table: Iterable[_Route], outer: str = "") -> Iterator[str]:
    """The patterns of a table and of the routers behind it, from the beginning of the path."""
    for route in table:
        pattern = f"{outer}{route.pattern}"
        inner = route.inner or getattr(_router_behind(route.application), "_table", ())
        yield from _patterns(inner, pattern) if inner else (pattern,)


def _matches(
    table: Iterable[_Route], outer: str, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[_Match]:
    for route in table:
        match = route.pattern.match(path)
        if not match:
            continue
        remaining, new_args, new_kwargs = match
        all_args, all_kwargs = args + new_args, {**kwargs, **new_kwargs, **route.defaults}
        if route.application is not None:
            # Not an f-string: outside of nested routes it would be another copy of the pattern for each WebSocket.
            pattern = outer + str(route.pattern)
            yield _Match(route.application, route.begin, pattern, remaining, all_args, all_kwargs)
        else:
            yield from _matches(route.inner, f"{outer}{route.pattern}", remaining, all_args, all_kwargs)


def _inner_scope(scope: Scope, match: _Match) -> Scope:
    outer = scope.get("url_route") or {"args": (), "kwargs": {}}
    return dict(
        scope,
        path_remaining=match.remaining,
        url_pattern=match.pattern,
        url_route={"args": outer["args"] + match.args, "kwargs": {**outer["kwargs"], **match.kwargs}},
    )


def _enter_mount_point(scope: Scope) -> str | None:
    """The path below the mount point, which from now on is that of ``reverse()``; None if it leads elsewhere.

    A path that is not below it is taken for one from which a proxy has removed it: so does Django, for HTTP. That of a
    WebSocket is not, if the server knows of no such proxy, because it has no ``root_path``.
    """
    if "path" not in scope:
        raise NoRouteFound(f"a URLRouter routes scopes with a path; got a {scope['type']!r} scope without one")
    mount, path = enter(scope, settings.FORCE_SCRIPT_NAME if settings.configured else None)
    if mount:
        set_script_prefix(mount)
    return scope["path"] if path is None and (scope.get("root_path") or scope["type"] != "websocket") else path


async def _no_route(why: str, scope: Scope, receive: Receive | None, send: Send | None) -> None:
    kind = scope["type"]
    if receive is None or send is None or kind not in ("http", "websocket"):
        raise NoRouteFound(why)  # without a client it is a test of the routes alone, as Channels' users write them
    if kind == "http":
        logger.warning("%s: answering 404 to %s", why, address(scope))
        await respond_plainly(send, 404, "Not found")
    else:
        logger.warning("%s: denying the WebSocket of %s", why, address(scope))
        await deny_websocket(receive, send)

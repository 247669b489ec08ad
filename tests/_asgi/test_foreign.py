"""Applications that need asyncio are refused, wherever they are; those that run on Trio are not."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import include, path
from django.views.generic import TemplateView
from hypercorn.middleware import AsyncioWSGIMiddleware, DispatcherMiddleware, TrioWSGIMiddleware

from trio_channels._asgi.foreign import refuse_foreign, refuse_other_callables
from trio_channels._http.handler import DjangoHandler
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.consumer import AsyncConsumer
from trio_channels.exceptions import ConfigurationError
from trio_channels.middleware import BaseMiddleware
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, get_default_application
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.staticfiles import StaticFilesHandler


def foreign(name: str, *bases: type) -> Any:
    """A class with the full name of another package's."""
    module, _, cls = name.rpartition(".")
    return type(cls, bases or (object,), {"__module__": module, "__call__": lambda self, *args: None})


class MyHandler(ASGIHandler):
    pass


class MyStaticFiles(ASGIStaticFilesHandler):
    pass


Consumer = foreign("channels.consumer.AsyncConsumer")
AsyncWebsocketConsumer = foreign("channels.generic.websocket.AsyncWebsocketConsumer", Consumer)
Chat = foreign("mysite.consumers.Chat", AsyncWebsocketConsumer)
Sync = foreign("channels.generic.websocket.WebsocketConsumer", Consumer)


def as_asgi(consumer: Any) -> Any:
    """As that of Channels: a function that knows its class."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        pass

    application.consumer_class = consumer  # type: ignore[attr-defined]
    return application


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


DJANGO = "import get_asgi_application from trio_channels.asgi, not from django.core.asgi"

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "django": (get_asgi_application, DJANGO),
    "subclass of django's": (MyHandler, "MyHandler, which needs asyncio: in your asgi.py, import get_asgi_application"),
    "static files": (
        lambda: ASGIStaticFilesHandler(DjangoHandler()),
        "use StaticFilesHandler of trio_channels",
    ),
    "subclass of static files": (lambda: MyStaticFiles(DjangoHandler()), "StaticFilesHandler of trio_channels"),
    "channels consumer": (
        lambda: as_asgi(Chat),
        "got mysite.consumers.Chat, which needs asyncio: import AsyncWebsocketConsumer from trio_channels.generic",
    ),
    "channels sync consumer": (lambda: as_asgi(Sync), "WebsocketConsumer from trio_channels.generic.websocket"),
    "channels consumer class": (lambda: Chat, "AsyncWebsocketConsumer from trio_channels.generic.websocket"),
    "channels router": (
        foreign("channels.routing.ProtocolTypeRouter"),
        "from trio_channels.routing",
    ),
    "channels origins": (
        foreign("channels.security.websocket.OriginValidator"),
        "OriginValidator from trio_channels.security.websocket",
    ),
    "wsgi on asyncio": (lambda: AsyncioWSGIMiddleware(wsgi), "TrioWSGIMiddleware"),
    "a2wsgi": (foreign("a2wsgi.wsgi.WSGIMiddleware"), "TrioWSGIMiddleware"),
    "quart": (foreign("quart.app.Quart"), "QuartTrio"),
    "sanic": (foreign("sanic.app.Sanic"), "a server for asyncio"),
    "socket.io": (
        foreign("socketio.asgi.ASGIApp", foreign("engineio.async_drivers.asgi.ASGIApp")),
        "a server for asyncio",
    ),
}


@override_settings(STATIC_URL="static/")
@pytest.mark.parametrize(("make", "remedy"), REFUSED.values(), ids=REFUSED)
def test_application_that_needs_asyncio_is_refused(make: Callable[[], Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an application that runs on Trio") as refused:
        ProtocolTypeRouter({"http": make()})
    assert remedy in str(refused.value)


class Wrapper:
    """An ASGI middleware without a base class, as most are."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass


class Mounting:
    """As Starlette keeps a mounted application: in a router's list of routes."""

    def __init__(self, app: Any) -> None:
        self.router = types.SimpleNamespace(routes=[types.SimpleNamespace(app=app)])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass


PLACES: dict[str, Callable[[Any], Any]] = {
    "scope type": lambda app: ProtocolTypeRouter({"websocket": app}),
    "route": lambda app: URLRouter([path("", app)]),
    "included route": lambda app: URLRouter([path("a/", include([path("", app)]))]),
    "channel": lambda app: ChannelNameRouter({"thumbnails": app}),
    "auth stack": lambda app: ProtocolTypeRouter({"http": AuthMiddlewareStack(app)}),
    "origins": lambda app: ProtocolTypeRouter({"http": AllowedHostsOriginValidator(app)}),
    "own middleware": lambda app: URLRouter([path("", BaseMiddleware(app))]),
    "middleware": lambda app: URLRouter([path("", Wrapper(Wrapper(app)))]),
    "static files": lambda app: ProtocolTypeRouter({"http": StaticFilesHandler(app)}),
    "mount": lambda app: ProtocolTypeRouter({"http": Mounting(app)}),
    "mount below a route": lambda app: URLRouter([path("", Mounting(Wrapper(app)))]),
    "dispatcher": lambda app: ProtocolTypeRouter({"http": DispatcherMiddleware({"/": app})}),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@override_settings(STATIC_URL="static/")
def test_application_for_asyncio_is_found_everywhere(place: Callable[[Any], Any]) -> None:
    place(DjangoHandler())
    with pytest.raises(ConfigurationError, match=r"django\.core\.handlers\.asgi\.ASGIHandler, which needs asyncio"):
        place(ASGIHandler())


class MyDjango(DjangoHandler):
    pass


class Mine(AsyncConsumer):
    pass


class Hostile:
    @property
    def app(self) -> Any:
        raise LookupError("nobody asks")

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


def in_a_circle() -> Any:
    one, other = Wrapper(None), Wrapper(None)
    one.app, other.app = other, one
    return one


ACCEPTED: dict[str, Callable[[], Any]] = {
    "django": DjangoHandler,
    "subclass of ours": MyDjango,
    "ours that is one of django's": lambda: type("Both", (DjangoHandler, ASGIHandler), {})(),
    "consumer": Mine.as_asgi,
    "quart on trio": foreign("quart_trio.app.QuartTrio", foreign("quart.app.Quart")),
    "starlette": foreign("starlette.applications.Starlette"),
    "fastapi": foreign("fastapi.applications.FastAPI", foreign("starlette.applications.Starlette")),
    "middleware of channels": foreign("mysite.Tokens", foreign("channels.middleware.BaseMiddleware")),
    "wsgi on trio": lambda: TrioWSGIMiddleware(wsgi),
    "hostile attributes": Hostile,
    "circle": in_a_circle,
    "function": lambda: wsgi,
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_application_that_may_run_on_trio_is_accepted(make: Callable[[], Any]) -> None:
    refuse_foreign(make())
    refuse_foreign(Wrapper(make()))


def view(request: Any, slug: str, kind: str) -> Any:
    pass


async def old_application(scope: Any) -> Any:
    pass


class View(TemplateView):
    pass


NO_APPLICATIONS: dict[str, tuple[Any, str]] = {
    "class": (Mine, r"got the class Mine\. Route to Mine\.as_asgi\(\)"),
    "as_asgi without its call": (Mine.as_asgi, r"got Mine\.as_asgi itself\. Call it: Mine\.as_asgi\(\)"),
    "view": (view, r"got the view view\. Put views into urls\.py"),
    "view of a class": (View.as_view(), r"got the view View\b.*\. Put views into urls\.py"),
    "wsgi": (wsgi, r"got wsgi, which is for WSGI\. Use the application of your asgi\.py"),
    "django's wsgi": (WSGIHandler(), r"got WSGIHandler, which is for WSGI"),
    "one argument": (old_application, r"got old_application, which takes \(scope\)"),
    "path": ("mysite.asgi.application", "got a value of the type str"),
    "nothing": (None, "got a value of the type NoneType"),
}


@pytest.mark.parametrize(("given", "said"), NO_APPLICATIONS.values(), ids=NO_APPLICATIONS)
def test_something_else_is_refused(given: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ProtocolTypeRouter({"websocket": given})
    if callable(given):  # path() refuses others itself
        with pytest.raises(ConfigurationError, match=said):
            URLRouter([path("", given)])
    monkeypatch.setattr(f"{__name__}.application", given)
    with override_settings(ASGI_APPLICATION=f"{__name__}.application"), pytest.raises(ConfigurationError, match=said):
        get_default_application()


class Proxy:
    """Has every attribute, as far as anybody can see."""

    def __init__(self, attribute: Any) -> None:
        self._attribute = attribute

    def __getattr__(self, name: str) -> Any:
        return self._attribute(name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass


def test_callable_that_may_be_an_application_is_taken() -> None:
    refuse_other_callables(dict, min, lambda *anything: None, Mine(), Mine.as_asgi(), Mock(), AsyncMock())
    refuse_other_callables(Proxy(str), Proxy({}.__getitem__), Proxy(lambda name: Mine))


application: Any = ASGIHandler()


@override_settings(ASGI_APPLICATION=f"{__name__}.application")
def test_setting_that_names_djangos_own_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"import get_asgi_application from trio_channels\.asgi"):
        get_default_application()

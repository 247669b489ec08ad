"""Views, streams, a middleware and consumers that fail, after they have waited for each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import sentry_sdk
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from .common import login_as, meet, meet_in_thread


def sync(request: HttpRequest) -> HttpResponse:
    sentry_sdk.set_tag("name", request.user.username)
    meet_in_thread(request)
    User.objects.get(username=request.user.username)
    meet_in_thread(request)
    raise ValueError(request.user.username)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    sentry_sdk.set_tag("name", user.username)
    await meet(request)
    await User.objects.aget(username=user.username)
    await meet(request)
    raise ValueError(user.username)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    name = request.GET["user"]

    async def parts() -> AsyncIterator[str]:
        sentry_sdk.set_tag("name", name)
        await meet(request)
        yield name
        await meet(request)
        sentry_sdk.capture_message(name)

    return StreamingHttpResponse(parts())


def below(request: HttpRequest) -> HttpResponse:
    sentry_sdk.set_tag("name", request.GET["user"])
    meet_in_thread(request)
    return HttpResponse()


def failing(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that fails after one of the views."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path == "/below/":
            raise ValueError(request.GET["user"])
        return response

    return middleware


class Async(AsyncWebsocketConsumer):
    """Says who it is; at a second message it fails, in its handler or in a background task."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data not in ("handler", "background"):
            self.name = text_data
            sentry_sdk.set_user({"username": text_data})
            await self.send("noted")
        elif text_data == "handler":
            raise ValueError(self.name)
        else:
            self.start_soon(self.fail)

    async def fail(self) -> None:
        raise ValueError(self.name)


class Sync(WebsocketConsumer):
    """As the other."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data not in ("handler", "background"):
            self.name = text_data
            sentry_sdk.set_user({"username": text_data})
            self.send("noted")
        elif text_data == "handler":
            raise ValueError(self.name)
        else:
            self.start_soon(self.fail)

    def fail(self) -> None:
        raise ValueError(self.name)


urlpatterns = [
    path("login/", login_as),
    path("sync/", sync),
    path("async/", asynchronous),
    path("stream/", stream),
    path("below/", below),
]
websocket_urlpatterns = [
    path("async/", SentryAsgiMiddleware(Async.as_asgi())),
    path("sync/", SentryAsgiMiddleware(Sync.as_asgi())),
]

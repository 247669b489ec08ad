"""Pages and sockets of users."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.closing import close_user
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.sync import async_to_sync

http = get_asgi_application()

from django.contrib.auth.models import User  # noqa: E402


def log_in(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get_or_create(username=request.GET["name"])[0])
    return HttpResponse()


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


def ban(request: HttpRequest) -> HttpResponse:
    async_to_sync(close_user)(User.objects.get(username=request.GET["name"]), 4003, "banned")
    return HttpResponse()


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    name = (await request.auser()).get_username()

    async def parts() -> AsyncIterator[str]:
        yield f"hello {name}"
        await trio.sleep_forever()

    return StreamingHttpResponse(parts())


urlpatterns = [path("login/", log_in), path("logout/", log_out), path("ban/", ban), path("stream/", stream)]


class Room(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(self.scope["user"].get_username())


application = ProtocolTypeRouter({"http": http, "websocket": AuthMiddlewareStack(Room.as_asgi())})

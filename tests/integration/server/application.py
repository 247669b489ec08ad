"""The application of the tests' hypercorn process; it prints each disconnect on stderr."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Echo(AsyncWebsocketConsumer):
    groups = ("everybody",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)

    async def disconnect(self, code: int) -> None:
        say(f"disconnected {code}")


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


urlpatterns = [path("hello/", hello)]

application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("echo/", Echo.as_asgi())])}
)

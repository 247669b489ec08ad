"""Fails in every place whose failure is logged."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter


class Handler(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise ValueError("boom in a handler")


class Background(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.start_soon(self.fail)

    async def fail(self) -> None:
        raise ValueError("boom in the background")


def fails(request: HttpRequest) -> HttpResponse:
    raise ValueError("boom in a view")


urlpatterns = [path("fails/", fails)]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("handler/", Handler.as_asgi()), path("background/", Background.as_asgi())]),
    }
)

"""A site with everything that is counted: a chat, a view, and its metrics."""

from __future__ import annotations

import os
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.metrics import MetricsApplication
from trio_channels.routing import ProtocolTypeRouter, URLRouter


class Chat(AsyncWebsocketConsumer):
    """Sends each message to the room; ``kill`` ends the process."""

    groups = ["room"]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "kill":
            os._exit(7)
        if text_data == "error":
            raise RuntimeError("as asked")
        await self.channel_layer.group_send("room", {"type": "room.said", "text": text_data})

    async def room_said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=f"{os.getpid()} {event['text']}")


def greet(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(f"{os.getpid()} {name}", status=200 if name != "nobody" else 410)


urlpatterns = [path("greet/<str:name>/", greet)]


def make_site() -> ProtocolTypeRouter:
    return ProtocolTypeRouter(
        {
            "http": URLRouter([path("metrics", MetricsApplication()), re_path("", get_asgi_application())]),
            "websocket": URLRouter([path("chat/<str:name>/", Chat.as_asgi())]),
        }
    )


application = make_site()

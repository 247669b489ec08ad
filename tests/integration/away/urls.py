"""The application: a page, a room, a job, and health."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

from trio_channels.asgi import get_asgi_application
from trio_channels.consumer import AsyncConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.health import health
from trio_channels.layers import channel_layers
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await channel_layers["default"].group_send("room", {"type": "say", "text": text_data})

    async def say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])


class Job(AsyncConsumer):
    async def job_do(self, message: dict[str, Any]) -> None:
        print("the job is done", flush=True)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


urlpatterns = [path("hello/", hello)]

application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("healthz", health), re_path("", get_asgi_application())]),
        "websocket": URLRouter([path("room/", Room.as_asgi())]),
        "channel": ChannelNameRouter({"jobs": Job.as_asgi()}),
    }
)

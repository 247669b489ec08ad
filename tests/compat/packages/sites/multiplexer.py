"""Two consumers over one WebSocket, by channelsmultiplexer; and a native one in the same process."""

from __future__ import annotations

import sys
from typing import Any

import sniffio
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from django.urls import path

from trio_channels.generic import websocket


class Echo(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"echo": content, "library": sniffio.current_async_library()})


class Group(AsyncJsonWebsocketConsumer):
    groups = ["everybody"]

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.group_send("everybody", {"type": "said", "text": content["text"]})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send_json({"said": event["text"]})


class Native(websocket.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        library, where = sniffio.current_async_library(), sys.modules[type(self).__mro__[1].__module__].__name__
        await self.send_json({"echo": content, "library": library, "base": where})


urlpatterns: list[Any] = []
websocket_urlpatterns = [
    path("many/", AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Echo.as_asgi(), group=Group.as_asgi())),
    path("native/", Native.as_asgi()),
]

"""The application of the crowds' servers: a room, an echo, and the figures of the process."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.urls import path

from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.server import statistics

#: How many ``disconnect`` handlers have run, by close code.
disconnected: Counter[int] = Counter()


class Room(AsyncWebsocketConsumer):
    """Everybody in the room gets each message."""

    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])

    async def disconnect(self, code: int) -> None:
        disconnected[code] += 1


class Echo(AsyncWebsocketConsumer):
    """An echo consumer."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        disconnected[code] += 1


async def figures(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request with the numbers of open connections, and of ended ones by reason."""
    layer = get_channel_layer()
    assert layer is not None
    body = json.dumps(
        {
            **asdict(statistics()),
            "layer": asdict(layer.statistics()),
            "disconnected": disconnected,
            "cpu": sum(os.times()[:2]),
        }
    ).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


application = ProtocolTypeRouter(
    {
        "http": figures,
        "websocket": URLRouter([path("room/", Room.as_asgi()), path("echo/", Echo.as_asgi())]),
    }
)

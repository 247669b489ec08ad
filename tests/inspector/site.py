"""A room for users, a worker whose messages fail at first, and the admin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.urls import path, re_path

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.consumer import SyncConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from trio_channels.staticfiles import StaticFilesHandler


class Room(AsyncWebsocketConsumer):
    """Passes on the messages to the room; answers its client with the process id."""

    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(os.getpid()))

    async def room_said(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])


class Jobs(SyncConsumer):
    """Fails until the file exists that ``TESTS_MARKER`` names."""

    def job_do(self, event: dict[str, Any]) -> None:
        marker = Path(os.environ["TESTS_MARKER"])
        if not marker.exists():
            raise RuntimeError("not yet: https://example.com/?token=secret-of-the-job")
        marker.with_suffix(".done").touch()


http = get_asgi_application()
application = ProtocolTypeRouter(
    {
        "http": URLRouter([re_path("", StaticFilesHandler(http))]),
        "websocket": AuthMiddlewareStack(URLRouter([path("room/<str:name>/", Room.as_asgi())])),
        "channel": ChannelNameRouter({"jobs": Jobs.as_asgi()}),
    }
)

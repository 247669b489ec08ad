"""The application of two server processes."""

from __future__ import annotations

import os
from typing import Any

from django.urls import path

from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.topics import LongPolling, Topic, TopicSocket, event


class Room(Topic):
    pattern = "room:<slug:name>"

    @event("process")
    async def process(self, payload: Any) -> int:
        return os.getpid()

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast("told", payload)


websocket = URLRouter([path("socket/websocket", TopicSocket.as_asgi(topics=[Room]))])
application = ProtocolTypeRouter({"http": URLRouter([path("socket/longpoll", LongPolling(websocket))])})

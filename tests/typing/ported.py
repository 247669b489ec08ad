"""Code as users write it, many of them after Channels' documentation. mypy and pyright check it; it is never run."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, URLResolver, include, path, re_path

from trio_channels import WebSocket, websocket
from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from trio_channels.health import health
from trio_channels.layers import get_channel_layer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.sync import async_to_sync


class Chat(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, close_code: int) -> None:
        await super().disconnect(close_code)
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class JsonChat(AsyncJsonWebsocketConsumer):
    groups = ["room"]

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json(content, close=True)


class SyncChat(WebsocketConsumer):
    def connect(self) -> None:
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
        self.accept()

    def disconnect(self, close_code: int) -> None:
        super().disconnect(close_code)
        async_to_sync(self.channel_layer.group_discard)("room", self.channel_name)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)
        self.close(4000)


class SyncJsonChat(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(content)

    def disconnect(self, code: int) -> None:
        super().disconnect(code)


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, body, headers=[(b"content-type", b"text/plain")])


@websocket
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    async for message in ws:
        await ws.send(message)


@websocket(cancel_on_disconnect=False)
async def patient(ws: WebSocket) -> None:
    await ws.accept()


def tell_the_room(text: str) -> None:
    layer = get_channel_layer()
    if layer is None:
        raise LookupError("no channel layer")
    async_to_sync(layer.group_send)("room", {"type": "chat.message", "text": text})


async def tell_the_room_async(text: str) -> None:
    await get_channel_layer().group_send("room", {"type": "chat.message", "text": text})


inner = [path("a/", Chat.as_asgi(), name="chat"), re_path("s/", SyncChat.as_asgi(), {"room": "lobby"})]
patterns: list[URLPattern | URLResolver] = [
    path("json/", JsonChat.as_asgi(limit=3)),
    re_path(r"^sync/(?P<room>\w+)/$", SyncJsonChat.as_asgi()),
    path("included/", include(inner)),
    path("nested/", URLRouter(inner)),
    re_path("users/", AuthMiddlewareStack(URLRouter(inner))),
    path("origin/", AllowedHostsOriginValidator(AuthMiddlewareStack(Chat.as_asgi()))),
    path("echo/", echo),
    re_path("patient/", patient),
]
http = [path("page/", Page.as_asgi()), path("healthz", health), re_path("", get_asgi_application())]
application = ProtocolTypeRouter(
    {
        "http": URLRouter(http),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(patterns))),
    }
)

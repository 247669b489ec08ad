"""The consumers of both frameworks: the same code, with the names of either package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

GROUP = "everybody"
TEXT = "x" * 100


def application(package: str) -> Any:
    """The ASGI application for WebSockets: origin check, routes, consumers.

    Args:
        package: ``trio_channels`` or ``channels``.
    """
    from django.urls import path

    generic: Any = import_module(f"{package}.generic.websocket")
    routing: Any = import_module(f"{package}.routing")
    security: Any = import_module(f"{package}.security.websocket")
    auth: Any = import_module(f"{package}.auth")

    class Echo(generic.AsyncWebsocketConsumer):  # type: ignore[misc]
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    class Room(generic.AsyncWebsocketConsumer):  # type: ignore[misc]
        """Sends as many messages to all as a member's text says."""

        groups = [GROUP]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for _ in range(int(text_data or 0)):
                await self.tell()

        async def tell(self) -> None:
            await self.channel_layer.group_send(GROUP, {"type": "told", "text": TEXT})

        async def told(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    class Broadcast(Room):
        async def tell(self) -> None:
            await self.channel_layer.group_broadcast(GROUP, text=TEXT)

    class Member(generic.AsyncWebsocketConsumer):  # type: ignore[misc]
        """Accepts the user of a session."""

        groups = [GROUP]

        async def connect(self) -> None:
            if self.scope["user"].is_authenticated:
                await self.accept()

    return security.AllowedHostsOriginValidator(
        routing.URLRouter(
            [
                path("echo/", Echo.as_asgi()),
                path("room/", Room.as_asgi()),
                path("broadcast/", Broadcast.as_asgi()),
                path("member/", auth.AuthMiddlewareStack(Member.as_asgi())),
            ]
        )
    )

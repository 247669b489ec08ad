"""What an application for Channels 1 becomes."""

from typing import Any

import trio
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.urls import path
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.consumer import AsyncConsumer
from trio_channels.generic.websocket import WebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.on_commit import group_broadcast_on_commit
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from trio_channels.sync import async_to_sync


class Chat(WebsocketConsumer):
    """ws_connect, ws_message and ws_disconnect."""

    def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = self.scope["user"].get_username() or "a visitor"
        self.group_add(f"chat-{self.room}")
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        tell = async_to_sync(self.channel_layer.group_broadcast)
        tell(f"chat-{self.room}", text=f"{self.name}: {text_data}")

    def disconnect(self, code: int) -> None:
        pass  # the connection leaves its groups by itself


class Reminders(AsyncConsumer):
    """The consumer of a named channel, and what the delay server did."""

    async def reminder_send(self, message: dict[str, Any]) -> None:
        await trio.sleep(message["delay"])
        await get_channel_layer().group_broadcast(message["group"], text=message["text"])


def user_saved(sender: type[User], instance: User, created: bool, **kwargs: Any) -> None:
    """A binding: every change of the model goes to a group."""
    change = {"action": "create" if created else "update", "pk": instance.pk, "username": instance.username}
    group_broadcast_on_commit("users", json=change)


post_save.connect(user_saved, sender=User)

application = ProtocolTypeRouter(
    {
        "websocket": AuthMiddlewareStack(URLRouter([path("chat/<slug:room>/", Chat.as_asgi())])),
        "channel": ChannelNameRouter({"reminders": Reminders.as_asgi()}),
    }
)

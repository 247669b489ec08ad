from typing import Any

from trio_channels.exceptions import DenyConnection
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Editors(AsyncJsonWebsocketConsumer):
    """Users may read, and users with a permission may write."""

    async def connect(self) -> None:
        user = self.scope["user"]
        if not user.is_authenticated:
            raise DenyConnection(401)
        self.may_write = await user.ahas_perm("auth.change_user")
        await self.channel_layer.group_add("news", self.channel_name)
        await self.accept()
        await self.send_json({"you": user.get_username(), "may_write": self.may_write})

    async def receive_json(self, content: Any) -> None:
        if not self.may_write:
            await self.send_json({"error": "you may only read"})
            return
        await self.channel_layer.group_send("news", {"type": "news.item", "item": content})

    async def news_item(self, event: dict[str, Any]) -> None:
        await self.send_json(event["item"])

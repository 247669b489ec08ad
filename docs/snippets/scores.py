from typing import Any

from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer
from trio_channels.layers.base import ChannelLayer


class Scores(AsyncJsonWebsocketConsumer):
    groups = ["scores"]

    async def receive_json(self, content: Any) -> None:
        # To all but the sender, who has shown its own score already.
        await self.channel_layer.group_broadcast("scores", json=content, exclude=self.channel_name)


async def announce(layer: ChannelLayer, score: dict[str, Any]) -> None:
    await layer.group_broadcast("scores", json=score)

from typing import Any

from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class News(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        # The first and only message of the browser: the position that it has kept, or null.
        joined = await self.group_add("news", since=content["since"])
        await self.send_json({"recovered": joined.recovered, "position": joined.position})

    async def news_item(self, event: dict[str, Any]) -> None:
        await self.send_json({"text": event["text"], "position": event["history"]["position"]})

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        await self.send_json({"recovered": False})

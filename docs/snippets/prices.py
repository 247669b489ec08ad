from typing import Any

from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Prices(AsyncJsonWebsocketConsumer):
    groups = ["prices"]
    mailbox_overflow = "drop_oldest"

    async def price(self, event: dict[str, Any]) -> None:
        await self.send_json({"price": event["value"]})

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        await self.send_json({"missing": event["lost"]})

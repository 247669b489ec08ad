from typing import Any

from trio_channels import Limits
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Ticker(AsyncJsonWebsocketConsumer):
    """Every attribute that a class may set."""

    groups = ["prices"]
    channel_layer_alias = "default"
    handler_concurrency = 1
    cancel_on_disconnect = True
    mailbox_overflow = "drop_oldest"
    limits = Limits(accept_timeout=5, outbox=16)

    async def connect(self) -> None:
        query = self.scope["query_string"].decode()
        if query == "closed":
            await self.close()  # before accept(): the handshake is denied
            return
        await self.accept()
        await self.send_json({"channel": self.channel_name, "path": self.scope["path"]})

    async def receive_json(self, content: Any) -> None:
        await self.channel_layer.group_send("prices", {"type": "price", "value": content})

    async def price(self, event: dict[str, Any]) -> None:
        await self.send_json({"price": event["value"]})

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        await self.send_json({"missing": event["lost"]})

    async def receive_invalid_json(self, text_data: str, error: Exception) -> None:
        await self.send_json({"error": str(error)})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_send("prices", {"type": "price", "value": f"left with {code}"})

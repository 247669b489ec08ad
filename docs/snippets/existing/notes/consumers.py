from typing import Any

from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Notes(AsyncJsonWebsocketConsumer):
    groups = ["notes"]

    async def connect(self) -> None:
        if self.scope["user"].is_authenticated:
            await self.accept()
        else:
            await self.close()

    async def note(self, event: dict[str, Any]) -> None:
        await self.send_json({"text": event["text"]})

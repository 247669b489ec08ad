from typing import Any

from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Room(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        user = self.scope["user"]
        await self.accept()
        await self.track("lobby", str(user.pk), {"name": user.get_username()})
        await self.send_json({"here": await self.watch_presence("lobby")})

    async def presence_diff(self, event: dict[str, Any]) -> None:
        await self.send_json({"joins": event["joins"], "leaves": event["leaves"]})

from typing import Any

import msgspec
from trio_channels.topics import JoinRefused, Topic, TopicSocket, broadcast, event


class NewMessage(msgspec.Struct):
    text: str


class Posted(msgspec.Struct):
    length: int


class Room(Topic):
    pattern = "room:<slug:room>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.kwargs["room"] == "closed":
            raise JoinRefused({"reason": "this room is closed"})
        await self.track(params.get("name", "somebody"))
        return {"title": self.kwargs["room"].title()}

    @event("message.new")
    async def message_new(self, payload: NewMessage) -> Posted:
        await self.broadcast("message.new", {"text": payload.text})
        return Posted(length=len(payload.text))

    @event("typing")
    async def typing(self, payload: dict[str, Any]) -> None:
        await self.broadcast_from("typing", payload)


application = TopicSocket.as_asgi(topics=[Room])


async def announce(room: str, text: str) -> None:
    await broadcast(f"room:{room}", "message.new", {"text": text})

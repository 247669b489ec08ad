from typing import Any

from django.http import QueryDict
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer

from .models import TEXT, Message, latest_messages
from .rooms import may_write


class ChatConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.room: str = self.scope["url_route"]["kwargs"]["room"]
        self.group = f"chat.{self.room}"
        await self.accept()
        # The position of the last message that the page has. Without one the page is new, and gets the latest messages.
        since = QueryDict(self.scope["query_string"]).get("since")
        await self.group_add(self.group, since=since)
        if since is None:
            await self.send_latest()

    async def receive_json(self, content: Any) -> None:
        text = content.get("text") if isinstance(content, dict) else None
        if not isinstance(text, str) or not TEXT.fullmatch(text):
            await self.send_json({"error": f"expected a text of 1 to {Message.MAX_LENGTH} characters"})
        elif not may_write(self.scope["user"], self.room):
            await self.send_json({"error": f"you may not write in {self.room}"})
        else:
            await self.say(self.scope["user"].get_username(), text)

    async def say(self, author: str, text: str) -> None:
        message = await Message.objects.acreate(room=self.room, author=author, text=text)
        await self.channel_layer.group_send(self.group, {"type": "chat.message", "message": message.as_json()})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"messages": [event["message"]], "position": event["history"]["position"]})

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        # Messages are missing here, or behind the page's position. The database has them.
        await self.send_latest()

    async def send_latest(self) -> None:
        await self.send_json({"messages": await latest_messages(self.room)})

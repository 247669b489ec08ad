"""The chat."""

import asyncio

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from .models import Message


class ChatConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.lock = asyncio.Lock()
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content):
        async with self.lock:
            # The database may be slow.
            try:
                await asyncio.wait_for(self.store(content["text"]), timeout=10)
            except asyncio.TimeoutError:
                await self.send_json({"error": "slow"})
                return
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": content["text"]})

    async def chat_message(self, event):
        await self.send_json({"text": event["text"]})

    @database_sync_to_async
    def store(self, text):
        Message.objects.create(room=self.room, text=text)

import asyncio
from asyncio import sleep

from channels.generic.websocket import AsyncWebsocketConsumer

from .workers import Worker


class TickConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        self.worker = Worker()
        asyncio.create_task(self.ticks(3))

    async def ticks(self, number):
        for tick in range(number):
            await sleep(0.01)
            await self.worker.add(tick)
        await asyncio.gather(self.report(1), self.report(2))  # both at once
        self.closing = asyncio.ensure_future(self.close_soon())

    async def report(self, number):
        await self.send(text_data=f"{number}: {await self.worker.next()}")

    async def close_soon(self):
        async with asyncio.timeout(5):
            await self.close()

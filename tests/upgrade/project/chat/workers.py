import asyncio


class Worker:
    def __init__(self):
        self.queue = asyncio.Queue()

    async def add(self, item):
        await self.queue.put(item)

    async def next(self):
        try:
            return self.queue.get_nowait()
        except asyncio.QueueEmpty:
            return await asyncio.wait_for(self.queue.get(), 5)

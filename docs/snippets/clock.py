import trio
from trio_channels.generic.websocket import AsyncWebsocketConsumer


class Clock(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        self.start_soon(self.tick)

    async def tick(self) -> None:
        seconds = 0
        while True:
            await self.send(str(seconds))
            await trio.sleep(1)
            seconds += 1

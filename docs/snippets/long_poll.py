import trio
from trio_channels.generic.http import AsyncHttpConsumer

SECONDS = 25  # below the time-outs of proxies, which often are 30 or 60


class NextNews(AsyncHttpConsumer):
    """Answers with the next news item, or with 204 after a while. Then the client asks again."""

    cancel_on_disconnect = True

    async def handle(self, body: bytes) -> None:
        async with self.channel_layer.subscribe("news", overflow="drop_oldest") as events:
            with trio.move_on_after(SECONDS):
                async for event in events:
                    if isinstance(event, dict):  # and not a Gap
                        await self.send_response(200, event["text"].encode())
                        return
            await self.send_response(204, b"")

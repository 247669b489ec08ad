import json
from typing import Any

import trio
from trio_channels.generic.http import AsyncHttpConsumer

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class News(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=HEADERS)  # first: from the next line on, news_item may be called
        await self.channel_layer.group_add("news", self.channel_name)
        await self.send_body(b": welcome\n\n", more_body=True)
        self.start_soon(self.keep_alive)

    async def keep_alive(self) -> None:
        while True:
            await trio.sleep(15)
            await self.send_body(b": still here\n\n", more_body=True)

    async def news_item(self, event: dict[str, Any]) -> None:
        await self.send_body(f"data: {json.dumps(event['text'])}\n\n".encode(), more_body=True)

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        await self.send_body(b"event: gap\ndata: {}\n\n", more_body=True)

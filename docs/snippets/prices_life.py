from collections.abc import AsyncIterator
from typing import Any

import trio
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter


async def poll(prices: dict[str, float]) -> None:
    while True:
        prices["ACME"] = 42.0  # ask your feed
        await trio.sleep(60)


async def run() -> AsyncIterator[dict[str, Any]]:
    prices: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll, prices)
        yield {"prices": prices}
        nursery.cancel_scope.cancel()


class Prices(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: str) -> None:
        await self.send_json(self.scope["state"]["prices"].get(content))


application = ProtocolTypeRouter({"websocket": Prices.as_asgi(), "lifespan": run})

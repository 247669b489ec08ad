"""The health of a process whose Redis comes and goes."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_channels.health import HealthApplication
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.testing import HttpCommunicator

from ...redis_server import RedisServer


async def test_layer_whose_redis_is_away_makes_it_red_until_it_is_back(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    async with RedisStreamsChannelLayer(hosts=[server.url]) as layer:
        strict = HealthApplication({"default": layer})
        tolerant = HealthApplication({"default": layer}, tolerate_outages=True)

        async def until(state: str) -> None:
            while strict.report()["layers"]["default"]["shards"] != [state]:
                await trio.lowlevel.checkpoint()

        async def status(application: HealthApplication) -> int:
            return int((await HttpCommunicator(application, "GET", "/healthz").get_response())["status"])

        await until("working")
        assert await status(strict) == 200
        server.kill()
        await until("connecting")
        assert await status(strict) == 503
        assert await status(tolerant) == 200
        server.start()
        await until("working")
        assert await status(strict) == 200

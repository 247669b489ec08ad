"""djangochannelsrestframework is built on Channels' consumers, which need asyncio; its serializers are DRF's."""

from __future__ import annotations

import json

from ..process import program
from .serving import serve_settings, site

OPTIONS = {"apps": ["rest_framework"]}


async def test_its_consumers_are_refused_at_the_start() -> None:
    with serve_settings("channels_rest_theirs", **OPTIONS) as environment:
        async with program("-m", "trio_channels", "serve", "tests.packages.asgi:application", **environment) as process:
            assert await process.ends() == 3
    assert "import AsyncJsonWebsocketConsumer from trio_channels.generic.websocket" in process.text


async def test_serializer_in_a_consumer_of_ours() -> None:
    async with site("channels_rest", **OPTIONS) as served, served.websocket("/own/") as client:
        await client.send_message('{"action": "list"}')
        listed = json.loads(await client.get_message())
    users = [{"username": name, "email": f"{name}@example.org"} for name in ("ada", "grace")]
    assert listed == {"action": "list", "data": users}

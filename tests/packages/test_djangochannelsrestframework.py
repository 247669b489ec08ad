"""djangochannelsrestframework is built on Channels' consumers, which need asyncio; its serializers are DRF's."""

from __future__ import annotations

import json

import pytest
from trio_websocket import ConnectionRejected

from .serving import site

OPTIONS = {"apps": ["rest_framework"]}


async def test_its_consumers_need_asyncio() -> None:
    async with site("channels_rest", **OPTIONS) as served:
        with pytest.raises(ConnectionRejected):
            async with served.websocket("/channels/"):
                raise AssertionError("it was accepted")
        await served.logged("other framework like asyncio")


async def test_serializer_in_a_consumer_of_ours() -> None:
    async with site("channels_rest", **OPTIONS) as served, served.websocket("/own/") as client:
        await client.send_message('{"action": "list"}')
        listed = json.loads(await client.get_message())
    users = [{"username": name, "email": f"{name}@example.org"} for name in ("ada", "grace")]
    assert listed == {"action": "list", "data": users}

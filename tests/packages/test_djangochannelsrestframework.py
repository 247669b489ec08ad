"""djangochannelsrestframework is built on Channels' consumers, which need asyncio; its serializers are DRF's."""

from __future__ import annotations

import json

import pytest

from .serving import site

APPS = ("rest_framework",)


async def test_its_consumers_need_asyncio() -> None:
    refused = pytest.RaisesExc(AssertionError, match=r"channels_rest\.ChannelsUsers, which needs asyncio: import")
    with pytest.RaisesGroup(refused):
        async with site("channels_rest", apps=APPS, CHANNELS_CONSUMER=True):
            pytest.fail("it is served")


async def test_serializer_in_a_consumer_of_ours() -> None:
    async with site("channels_rest", apps=APPS, CHANNELS_CONSUMER=False) as served, served.websocket("/") as client:
        await client.send_message('{"action": "list"}')
        listed = json.loads(await client.get_message())
    users = [{"username": name, "email": f"{name}@example.org"} for name in ("ada", "grace")]
    assert listed == {"action": "list", "data": users}

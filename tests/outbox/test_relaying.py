"""The relay: what is committed arrives, once and in order, and what is rolled back does not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from django.db import transaction

from trio_channels import outbox
from trio_channels.db import aatomic, database_sync_to_async

from .conftest import LayerBlock, numbers, until_empty


class Undone(Exception):
    pass


async def test_committed_messages_arrive_in_order(database: Any, layer_block: LayerBlock) -> None:
    async with layer_block() as layer, outbox.relay() as relay, layer.subscribe("g") as events:
        for n in range(20):
            await outbox.agroup_send("g", {"type": "t", "n": n})
        assert await numbers(events, 20) == list(range(20))
        await until_empty()
        assert relay.statistics().sent == 20


async def test_rolled_back_messages_do_not_arrive(database: Any, layer_block: LayerBlock) -> None:
    async with layer_block() as layer, outbox.relay(), layer.subscribe("g") as events:
        with pytest.raises(Undone):
            async with aatomic():
                await outbox.agroup_send("g", {"type": "t", "n": 1})
                raise Undone
        async with aatomic():
            await outbox.agroup_send("g", {"type": "t", "n": 2})
            with pytest.raises(Undone):
                async with aatomic():
                    await outbox.agroup_send("g", {"type": "t", "n": 3})
                    raise Undone
            await outbox.agroup_send("g", {"type": "t", "n": 4})
        assert await numbers(events, 2) == [2, 4]
        await until_empty()


async def test_message_waits_for_its_commit(database: Any, layer_block: LayerBlock) -> None:
    @database_sync_to_async
    def write() -> None:
        with transaction.atomic():
            outbox.group_send("g", {"type": "t", "n": 1})

    async with layer_block() as layer, outbox.relay(), layer.subscribe("g") as events:
        await write()
        assert await numbers(events, 1) == [1]

"""Broadcasts to topics by the outbox: they commit with their transaction, and clients get them as any other."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from trio_channels import outbox
from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.exceptions import MessageNotEncodable
from trio_channels.outbox.models import OutboxMessage
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, broadcast

from .conftest import LayerBlock


class Room(Topic):
    pattern = "room:<str:name>"


APPLICATION = TopicSocket.as_asgi(topics=[Room])
TOPIC = "room:a_b.c"  # its group has another name


async def fail_after_broadcast() -> None:
    async with aatomic():
        await outbox.atopic_broadcast(TOPIC, "undone", {"n": 1})
        raise ZeroDivisionError


@pytest.mark.parametrize("payload", [None, {"n": 2}, "text", b"\x00\xff"], ids=repr)
async def test_clients_get_it_as_a_broadcast(sqlite_database: Any, layer_block: LayerBlock, payload: object) -> None:
    async with layer_block(), outbox.relay(), TopicCommunicator(APPLICATION) as client:
        await client.connect()
        await client.join(TOPIC)
        with pytest.raises(ZeroDivisionError):
            await fail_after_broadcast()
        await database_sync_to_async(outbox.topic_broadcast)(TOPIC, "kept", payload)
        relayed = await client.receive_event(TOPIC)
        await broadcast(TOPIC, "kept", payload)
        assert relayed == await client.receive_event(TOPIC)


@pytest.mark.parametrize(
    ("topic", "event", "payload"),
    [("", "e", {}), ("t", "", {}), ("t", "e", object()), ("t" * 256, "e", {}), (7, "e", {})],
)
def test_wrong_broadcast_is_refused_by_the_call(sqlite_database: Any, topic: Any, event: str, payload: object) -> None:
    with transaction.atomic():
        with pytest.raises(MessageNotEncodable):
            outbox.topic_broadcast(topic, event, payload)
        outbox.topic_broadcast("t", "e")  # the transaction is not broken
    assert [row.group for row in OutboxMessage.objects.all()] == ["topic.t"]

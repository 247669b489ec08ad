"""Channels that nobody owns keep nothing: used reply channels, expired messages, channels that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels.exceptions import ChannelLayerUnavailable, ForeignChannel
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.names import new_channel_name, new_reply_channel_name, reply_mark

from .test_memory import OtherRun

CAPACITY = 4


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(capacity=CAPACITY)


@pytest.fixture
def other() -> Iterator[OtherRun]:
    with OtherRun() as run:
        yield run


def message(number: int) -> dict[str, Any]:
    return {"type": "x", "n": number}


async def test_used_reply_channel_is_forgotten_at_once(layer: InMemoryChannelLayer) -> None:
    for number in range(10):
        name = await layer.new_channel()
        await layer.send(name, message(number))
        assert (await layer.receive(name))["n"] == number
    assert layer.statistics().channels == 0


async def test_forgotten_reply_channel_works_again(layer: InMemoryChannelLayer) -> None:
    name = await layer.new_channel()
    for number in range(3):
        await layer.send(name, message(number))
        await layer.send(name, message(number))
        assert (await layer.receive(name))["n"] == number
        assert layer.statistics().channels == 1
        assert (await layer.receive(name))["n"] == number
        assert layer.statistics().channels == 0
    await layer.group_add("room", name)
    await layer.group_send("room", message(5))
    assert (await layer.receive(name))["n"] == 5
    assert layer.statistics().memberships == 1


async def test_cancelled_receive_leaves_no_reply_channel(layer: InMemoryChannelLayer) -> None:
    name = await layer.new_channel()
    with trio.move_on_after(0):
        await layer.receive(name)
    assert layer.statistics().channels == 0
    await layer.send(name, message(1))
    assert await layer.receive(name) == message(1)


async def test_second_receiver_keeps_the_channel(layer: InMemoryChannelLayer) -> None:
    name = await layer.new_channel()
    got: list[Any] = []

    async def receive() -> None:
        got.append((await layer.receive(name))["n"])

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(receive)
        for number in range(3):
            await layer.send(name, message(number))
    assert sorted(got) == [0, 1, 2]
    assert layer.statistics().channels == 0


async def test_receiving_on_a_connections_channel_keeps_it(layer: InMemoryChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.send(mailbox.name, message(1))
        assert await layer.receive(mailbox.name) == message(1)
        assert layer.statistics().channels == 1


async def test_closing_ends_a_receive(layer: InMemoryChannelLayer) -> None:
    async def receive() -> None:
        with pytest.raises(ChannelLayerUnavailable):
            await layer.receive(name)

    name = await layer.new_channel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await layer.close()
    assert layer.statistics().channels == 0


async def test_expired_messages_of_unread_channels_are_deleted(mock_clock: MockClock) -> None:
    layer = InMemoryChannelLayer(expiry=1)
    for number in range(10):
        await layer.send(f"unread.{number}", message(number))
    await layer.send("read", message(1))
    await layer.receive("read")
    mock_clock.jump(1.5)
    await layer.new_channel()
    assert (layer.statistics().waiting, layer.statistics().expired) == (0, 10)
    assert set(layer._hub().mailboxes) >= {"read"}
    assert not any(name.startswith("unread") for name in layer._hub().mailboxes)


async def test_waiting_messages_and_members_are_kept(mock_clock: MockClock) -> None:
    layer = InMemoryChannelLayer(expiry=100, group_expiry=1000)
    member = await layer.new_channel()
    await layer.group_add("room", member)
    mock_clock.jump(60)
    await layer.send("waiting", message(1))
    mock_clock.jump(60)
    await layer.new_channel()
    assert {member, "waiting"} <= set(layer._hub().mailboxes)


async def test_other_run_reaches_a_forgotten_reply_channel(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    name = await layer.new_channel()
    await layer.send(name, message(1))
    await layer.receive(name)
    await other.call(layer.send, name, message(2))
    assert await layer.receive(name) == message(2)
    await other.call(layer.group_add, "room", name)
    await other.call(layer.group_send, "room", message(3))
    assert await layer.receive(name) == message(3)


async def test_receiving_on_another_runs_channel_is_refused(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    await layer.send("jobs", message(1))
    with layer.open_mailbox() as mailbox:
        for name in (mailbox.name, await layer.new_channel(), "jobs"):
            with pytest.raises(ForeignChannel, match="expected a channel of this process and Trio run"):
                await other.call(layer.receive, name)


def test_name_of_a_reply_channel_has_the_mark_of_its_hub() -> None:
    name = new_reply_channel_name("specific", ".process", "1f")
    assert reply_mark(name) == "1f"
    assert len(name) == len(new_channel_name("specific", ".process"))
    assert [reply_mark(other) for other in (new_channel_name("specific"), "jobs", "a!", "a!really")] == [
        "",
        "",
        "",
        "eally",
    ]

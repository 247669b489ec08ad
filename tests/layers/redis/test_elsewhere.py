"""Memberships of other processes' channels: their process carries them out, or the caller is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable, ForeignChannel
from trio_channels.layers.hub import Hub
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.message import Counters
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.codec import MEMBERSHIP, EntryCodec, Payload
from trio_channels.layers.redis.elsewhere import CONFIRM, JOIN, LEAVE, MembershipsElsewhere
from trio_channels.sync import async_to_sync

from .world import make_layers, redis, until

#: Groups of both shards.
GROUPS = [f"room-{number}" for number in range(6)]


@asynccontextmanager
async def two_processes(
    url: str, shards: int = 1, **options: Any
) -> AsyncIterator[tuple[RedisStreamsChannelLayer, RedisStreamsChannelLayer]]:
    """Two sessions on one Redis: for each other they are two processes."""
    prefix = make_layers(url)[0].prefix
    owner, other = (RedisStreamsChannelLayer(hosts=[url] * shards, prefix=prefix, **options) for _ in range(2))
    async with owner, other:
        yield owner, other


async def received(layer: RedisStreamsChannelLayer, channel: str) -> Any:
    with trio.fail_after(10):
        return (await layer.receive(channel))["n"]


@pytest.mark.parametrize("shards", [1, 2])
async def test_other_process_adds_and_discards(url: str, shards: int) -> None:
    async with two_processes(url, shards) as (owner, other):
        name = await owner.new_channel()
        for number, group in enumerate(GROUPS):
            await other.group_add(group, name)
            await other.group_send(group, {"type": "x", "n": number})
            assert await received(owner, name) == number
        for group in GROUPS:
            await other.group_discard(group, name)
            await other.group_send(group, {"type": "x", "n": "secret"})
            await owner.group_send(group, {"type": "x", "n": "secret"})
        await other.send(name, {"type": "x", "n": "last"})
        assert await received(owner, name) == "last"
        assert owner.statistics().memberships == 0


async def test_adding_twice_and_discarding_nobody_change_nothing(url: str) -> None:
    async with two_processes(url) as (owner, other):
        name = await owner.new_channel()
        await other.group_discard("room", name)
        await other.group_add("room", name)
        await other.group_add("room", name)
        await other.group_send("room", {"type": "x", "n": 1})
        await other.send(name, {"type": "x", "n": 2})
        assert [await received(owner, name), await received(owner, name)] == [1, 2]


async def test_thread_outside_this_run_adds_and_discards(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        name = await layer.new_channel()
        await trio.to_thread.run_sync(async_to_sync(layer.group_add), "room", name)
        assert layer.statistics().memberships == 1
        await trio.to_thread.run_sync(async_to_sync(layer.group_discard), "room", name)
        assert layer.statistics().memberships == 0


async def test_ended_channel_cannot_become_a_member(url: str) -> None:
    async with two_processes(url) as (owner, other):
        with owner.open_mailbox() as mailbox:
            name = mailbox.name
        for layer in (owner, other):
            await layer.group_add("room", name)
            await layer.group_discard("room", name)
        assert owner.statistics().groups == other.statistics().groups == 0


async def test_channel_of_an_ended_process_is_ignored(url: str) -> None:
    async with two_processes(url) as (owner, other):
        name = await owner.new_channel()
        await owner.close()
        await other.group_add("room", name)
        await other.group_discard("room", name)
        assert other.statistics().groups == 0


@pytest.mark.parametrize("call", ["group_add", "group_discard"])
async def test_process_that_does_not_confirm_is_an_error(url: str, call: str) -> None:
    async with two_processes(url, timeout=0.5) as (_owner, other):
        await redis(url, "XADD", f"{{{other.prefix}:0}}:i:silent", "*", "a", "b")
        with pytest.raises(ChannelLayerUnavailable, match=r"did not confirm within 0\.5 seconds that the channel has"):
            await getattr(other, call)("room", "specific.silent!1")
        assert repr(other._session().elsewhere).endswith("0 requests wait>")


async def test_full_inbox_of_another_process_is_an_error(url: str) -> None:
    async with two_processes(url, inbox_capacity=1) as (_owner, other):
        await redis(url, "XADD", f"{{{other.prefix}:0}}:i:full", "*", "a", "b")
        with pytest.raises(ChannelLayerUnavailable, match="is full; try again"):
            await other.group_add("room", "specific.full!1")


async def test_malformed_request_is_skipped_and_counted(url: str) -> None:
    async with two_processes(url) as (owner, other):
        name = await owner.new_channel()
        session = other._session()
        for content in ({"type": JOIN}, {"type": "x", "group": "g", "process": "p", "number": 1}):
            blob = EntryCodec().pack(MEMBERSHIP, name, content)
            assert await session.send_to_process(owner._session().process, blob, 100) == 1
        await until(lambda: owner.shard_statistics()[0].undecodable == 2)
        await other.group_add("room", name)
        assert owner.statistics().memberships == 1


async def test_receiving_on_a_foreign_channel_is_refused(url: str) -> None:
    async with two_processes(url) as (owner, other):
        name = await owner.new_channel()
        for channel in (name, "specific!gone", "specific.gone!1"):
            with pytest.raises(ForeignChannel, match="expected a channel of this process"):
                await other.receive(channel)


# -- without Redis -----------------------------------------------------------------------------------------------------


def requests(sent: list[tuple[str, bytes]], *, answer: int = 1, joins: bool = True) -> MembershipsElsewhere:
    async def send(process: str, blob: bytes) -> int:
        await trio.lowlevel.checkpoint()
        sent.append((process, blob))
        return answer

    async def wait_until_joined(group: str) -> None:
        await trio.lowlevel.checkpoint()
        if not joins:
            raise ChannelLayerUnavailable("Redis is away")

    return MembershipsElsewhere(
        process="me", hub=Hub(), codec=EntryCodec(), send=send, wait_until_joined=wait_until_joined, timeout=5
    )


def request(action: str, number: int = 1) -> Payload:
    return Payload(MEMBERSHIP, "specific.me!1", {"type": action, "group": "g", "process": "other", "number": number})


async def test_confirmation_that_nobody_waits_for_is_ignored() -> None:
    sent: list[Any] = []
    requests(sent).receive(request(CONFIRM))
    assert sent == []


async def test_membership_that_redis_lacks_is_not_confirmed(autojump_clock: Any) -> None:
    sent: list[Any] = []
    elsewhere = requests(sent, joins=False)
    elsewhere._hub.open(Mailbox("specific.me!1", capacity=5, overflow="close", counters=Counters()))
    elsewhere.receive(request(JOIN))
    elsewhere.receive(request(LEAVE, 2))
    with trio.move_on_after(1):
        await elsewhere.run()
    [(process, blob)] = sent
    assert process == "other"
    assert EntryCodec().unpack(blob).message["number"] == 2


async def test_cancelled_caller_leaves_nothing(autojump_clock: Any) -> None:
    elsewhere = requests([])
    with trio.move_on_after(1) as scope:
        await elsewhere.change(JOIN, "g", "specific.other!1", "other")
    assert scope.cancelled_caught
    assert not elsewhere._confirmed

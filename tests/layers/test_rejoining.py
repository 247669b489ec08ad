"""Members that come and go while messages are sent: each gets everything from its first message on.

The steps of one example are drawn by hypothesis. Over Redis the test decides when Redis gets the next change of the
memberships, and when the reader delivers the next entry.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_channels.layers import InMemoryChannelLayer, hub
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.redis import RedisStreamsChannelLayer, probe
from trio_channels.layers.redis.scripts import GROUP_ADD, GROUP_DISCARD
from trio_channels.layers.redis.shard import Shard

from ..redis_server import RedisServer
from .redis.world import make_layers, redis, until

JOIN, LEAVE, SEND, GO, CHANGE, READ, CUT = "join", "leave", "send", "go", "change", "read", "cut"
AGAIN, RETRY = "leave and join again", "cancel the join and join again"
#: A leave overtakes the join that follows it: the messages between them are missing behind one that is not.
OVERTAKEN = [JOIN, CHANGE, SEND, LEAVE, GO, JOIN, READ, CHANGE, SEND, CHANGE, SEND, READ]


class Membership(NamedTuple):
    """Everything that a member was given, and the number of messages sent when its join was complete."""

    items: list[Any]
    joined: int | None

    def check(self, until: int | None = None) -> None:
        """No gap and no hole; the first message is no later than the join; the last is number `until`."""
        numbers = [item["n"] for item in self.items]
        assert all(after == before + 1 for before, after in pairwise(numbers)), numbers
        if self.joined is not None:
            assert not numbers or numbers[0] <= self.joined, (numbers, self.joined)
        if until is not None:
            assert numbers[-1:] == [until], (numbers, until)


class Member:
    """One mailbox, and its memberships one after the other."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended: list[Membership] = []
        self.joined: int | None = None
        self._stay = trio.CancelScope()
        self._leaves = False

    async def run(self, crowd: Crowd) -> None:
        with self.scope, crowd.layer.open_mailbox() as mailbox:
            try:
                while True:
                    with self._stay:
                        await crowd.layer.group_add("room", mailbox.name)
                        self.joined = crowd.sent
                        await trio.sleep_forever()
                    self._stay = trio.CancelScope()
                    if self._leaves:
                        await crowd.layer.group_discard("room", mailbox.name)
                        self._end(mailbox)
            finally:
                self._end(mailbox)

    def _end(self, mailbox: Mailbox) -> None:
        self.ended.append(Membership(list(iter(mailbox.get_nowait, None)), self.joined))
        self.joined = None

    def join_again(self, *, leave: bool) -> None:
        """Cancel a join that is under way; then, perhaps after a leave, join again."""
        if leave or self.joined is None:
            self._leaves = leave
            self._stay.cancel()

    def check(self, until: int | None = None) -> None:
        *before, last = self.ended
        for membership in before:
            membership.check()
        last.check(until)


class Crowd:
    """The members of one group, and a sender, which may be in another process."""

    def __init__(self, layer: ChannelLayer, sender: ChannelLayer, nursery: trio.Nursery) -> None:
        self.layer = layer
        self.ordered = self.sent = self.answered = 0
        self._sender = sender
        self._nursery = nursery
        self._members: list[Member] = []
        self._left: list[Member] = []
        self._to_send, orders = trio.open_memory_channel[None](100)
        nursery.start_soon(self._send, orders)

    async def _send(self, orders: trio.MemoryReceiveChannel[None]) -> None:
        async for _ in orders:
            self.sent += 1
            await self._sender.group_send("room", {"type": "x", "n": self.sent - 1})
            self.answered += 1

    async def take(self, step: str) -> None:
        """One step that any layer has."""
        if step == JOIN:
            self._members.append(Member())
            self._nursery.start_soon(self._members[-1].run, self)
        elif step == LEAVE and self._members:
            self._left.append(self._members.pop(0))
            self._left[-1].scope.cancel()
        elif step in (AGAIN, RETRY) and self._members:
            self._members.append(self._members.pop(0))
            self._members[-1].join_again(leave=step == AGAIN)
        elif step == SEND:
            self.ordered += 1
            self._to_send.send_nowait(None)
        await trio.lowlevel.checkpoint()

    async def end(self) -> None:
        """Send a last message, and check everything."""
        staying = self._members
        await trio.testing.wait_all_tasks_blocked()  # each member has begun its last join
        await until(lambda: all(member.joined is not None for member in staying))
        await self.take(SEND)
        await until(lambda: self.answered == self.ordered)
        last = self.sent - 1
        mailboxes = self.layer._hub().groups.get("room", {}).values()  # type: ignore[attr-defined]
        await until(lambda: all(_last_number(mailbox) == last for mailbox in mailboxes))
        for member in self._left + staying:
            member.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        for member in self._left:
            member.check()
        for member in staying:
            member.check(last)
        self._nursery.cancel_scope.cancel()


def _last_number(mailbox: Any) -> int | None:
    return mailbox._entries[-1].unwrap()["n"] if mailbox._entries else None


# -- one process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [2, 64])
def test_no_hole_in_one_process(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PART", part)  # with 2, three members get a message in parts

    async def play(steps: list[str]) -> None:
        layer = InMemoryChannelLayer()
        async with trio.open_nursery() as nursery:
            crowd = Crowd(layer, layer, nursery)
            for step in steps:
                await crowd.take(step)
            await crowd.end()

    @given(st.lists(st.sampled_from([JOIN, JOIN, LEAVE, AGAIN, RETRY, SEND, SEND, GO]), max_size=40))
    @settings(max_examples=300)
    def explore(steps: list[str]) -> None:
        trio.run(play, steps)

    explore()


# -- Redis -------------------------------------------------------------------------------------------------------------


class Gate:
    """Calls that wait until the test lets them pass, one at a time."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = False
        self._permits = trio.Semaphore(0)
        self._passed = 0

    async def pass_through(self, call: Callable[[], Awaitable[Any] | None]) -> Any:
        if not self._opened:
            self.waiting += 1
            try:
                await self._permits.acquire()
            finally:
                self.waiting -= 1
        try:
            rest = call()
            return rest if rest is None else await rest
        finally:
            self._passed += 1

    async def let_one_pass(self) -> None:
        passed = self._passed
        self._permits.release()
        await until(lambda: self._passed > passed)

    def open(self) -> None:
        self._opened = True
        for _ in range(self.waiting):
            self._permits.release()


class GatedShard:
    """A shard whose changes of memberships and deliveries wait at gates."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.changes, self.entries = Gate(), Gate()
        call, deliver = shard.pipeline.call, shard.delivery.deliver

        def gated_call(*arguments: Any) -> Awaitable[Any]:
            if arguments[1] in (GROUP_ADD.sha, GROUP_DISCARD.sha):
                return self.changes.pass_through(lambda: call(*arguments))
            return call(*arguments)

        shard.pipeline.call = gated_call  # type: ignore[method-assign]
        shard.delivery.deliver = lambda *entry: self.entries.pass_through(lambda: deliver(*entry))  # type: ignore[method-assign]

    async def change(self) -> None:
        """Redis gets the next change of the memberships, if there is one."""
        await trio.testing.wait_all_tasks_blocked()
        if self.changes.waiting:
            await self.changes.let_one_pass()

    async def read(self, url: str) -> None:
        """The reader delivers the next entry, if there is one."""
        info = await redis(url, "XINFO", "STREAM", self._shard.keys.inbox)
        if self.entries.waiting or info[info.index(b"last-generated-id") + 1] != self._shard.reader._last_id:
            await until(lambda: self.entries.waiting)
            await self.entries.let_one_pass()

    async def cut(self, url: str) -> None:
        """End the connections of all layers."""
        await redis(url, "CLIENT", "KILL", "TYPE", "normal")

    def open(self) -> None:
        self.changes.open()
        self.entries.open()


async def play_over_redis(url: str, steps: list[str]) -> None:
    layer, sender = make_layers(url, url)
    async with layer, sender, trio.open_nursery() as nursery:
        shard = GatedShard(layer._session().shards[0])
        crowd = Crowd(layer, sender, nursery)
        for step in steps:
            await crowd.take(step)
            if step == SEND:
                await until(lambda: crowd.answered == crowd.ordered)
            elif step == GO:
                await trio.testing.wait_all_tasks_blocked()
            elif step == CHANGE:
                await shard.change()
            elif step == READ:
                await shard.read(url)
            elif step == CUT:
                await shard.cut(url)
        shard.open()
        await crowd.end()


@pytest.mark.slow
@pytest.mark.parametrize("rare", [(), (CUT,)], ids=["connected", "cut"])
def test_no_hole_over_redis(redis_server: RedisServer, rare: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 1000.0)  # its commands would overtake those that wait at a gate
    often = [JOIN, LEAVE, AGAIN, RETRY, SEND, SEND, GO, CHANGE, READ] * 4

    @given(st.lists(st.sampled_from([*often, *rare]), min_size=15, max_size=50))
    @example(OVERTAKEN)
    @settings(max_examples=20 if rare else 150)
    def explore(steps: list[str]) -> None:
        trio.run(play_over_redis, redis_server.url, steps)

    explore()


# -- many members at once, and no gates ------------------------------------------------------------------------------


async def churn(layer: ChannelLayer, sender: ChannelLayer, seed: int, joins: int = 80) -> None:
    """Members come and go, each after a few messages, while two tasks send without pause."""
    choose = random.Random(seed)
    sent = {"here": 0, "there": 0}

    async def send(name: str, through: ChannelLayer) -> None:
        while True:
            sent[name] += 1
            await through.group_send("room", {"type": "x", "from": name, "n": sent[name] - 1})

    async def come_and_go() -> None:
        for _ in range(joins):
            got: dict[str, list[int]] = {"here": [], "there": []}
            async with layer.subscribe("room") as events:
                joined = dict(sent)
                for _ in range(choose.randrange(12)):
                    item: Any = await anext(events)
                    got[item["from"]].append(item["n"])
            for name, numbers in got.items():
                assert all(after == before + 1 for before, after in pairwise(numbers)), numbers
                assert not numbers or numbers[0] <= joined[name]
            for _ in range(choose.randrange(40)):
                await trio.lowlevel.checkpoint()

    with trio.fail_after(120):
        async with trio.open_nursery() as senders:
            senders.start_soon(send, "here", layer)
            senders.start_soon(send, "there", sender)
            async with trio.open_nursery() as members:
                members.start_soon(come_and_go)
                members.start_soon(come_and_go)
            senders.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", ["one host", "two hosts", "cluster"])
async def test_no_hole_in_a_crowd_over_redis(
    redis_server: RedisServer, request: pytest.FixtureRequest, place: str, seed: int
) -> None:
    url = redis_server.url
    hosts: Any = request.getfixturevalue("redis_cluster").hosts if place == "cluster" else [url, f"{url}/1"]
    hosts = hosts[:1] if place == "one host" else hosts
    first, second = (RedisStreamsChannelLayer(hosts=hosts, prefix=f"churn-{place[0]}-{seed}") for _ in range(2))
    async with first, second:
        await churn(first, second, seed)


@pytest.mark.parametrize("seed", range(3))
async def test_no_hole_in_a_crowd_in_one_process(seed: int) -> None:
    layer = InMemoryChannelLayer()
    await churn(layer, layer, seed)

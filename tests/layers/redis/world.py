"""Helpers of the tests of a failing Redis: layers that stand for processes, their traffic, a client."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.connection import ReplyError, open_connection
from trio_channels.layers.redis.hosts import parse_host
from trio_channels.layers.redis.pipeline import Pipeline

from ...faults.checker import DeliveryChecker, Receiver

#: Seconds within which an expected event must happen; only a failing test waits as long.
DEADLINE = 60.0

_prefixes = (f"fault-{number}" for number in itertools.count())


def make_layers(*urls: Any, **options: Any) -> list[RedisStreamsChannelLayer]:
    """Layers that share a prefix: each acts as a process of its own."""
    options = {"prefix": next(_prefixes), "capacity": 100_000, "overflow": "drop_newest"} | options
    hosts = [url if isinstance(url, dict) and "cluster" in url else [url] for url in urls]
    return [RedisStreamsChannelLayer(hosts=host, **options) for host in hosts]


async def redis(url: str, *command: Any) -> Any:
    """Redis' reply to a command."""
    connection = await open_connection(parse_host(url))
    try:
        [reply] = await connection.exchange(command)
    finally:
        await connection.aclose()
    assert not isinstance(reply, ReplyError), reply
    return reply


async def keys(url: str, layer: RedisStreamsChannelLayer) -> set[str]:
    """The layer's keys, without their hash tags."""
    found = await redis(url, "KEYS", f"{{{layer.prefix}:*")
    return {key.decode().partition("}:")[2] for key in found}


async def connections(url: str) -> int:
    """The number of Redis' clients, without the one that asks."""
    return len((await redis(url, "CLIENT", "LIST")).splitlines()) - 1


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; it may be asynchronous."""
    with trio.fail_after(DEADLINE):
        while True:
            met = condition()
            if hasattr(met, "__await__"):
                met = await met
            if met:
                return
            await trio.sleep(0.005)


@contextmanager
def held_back(pipeline: Pipeline) -> Iterator[None]:
    """Hold back a pipeline's calls in the block, as while it waits for replies; send them as one batch at its end."""
    send_batch = Pipeline._send_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "_send_batch", lambda self: None if self is pipeline else send_batch(self))
        yield
    pipeline._send_batch()


class Traffic:
    """Publishers and members on several layers; the checker records their messages.

    Attributes:
        gaps: the gaps of each receiver, in order.
    """

    def __init__(self, layers: Sequence[RedisStreamsChannelLayer], groups: Sequence[str]) -> None:
        self.checker = DeliveryChecker()
        self.gaps: defaultdict[str, list[Gap]] = defaultdict(list)
        self.delivered = 0
        self._layers = layers
        self._groups = groups
        self._last: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)

    async def publish(self, count: int) -> None:
        """Send `count` messages from every layer to every group; a send that raises counts."""
        async with trio.open_nursery() as nursery:
            for number in range(len(self._layers)):
                for group in self._groups:
                    nursery.start_soon(self._publish, number, group, count)

    async def _publish(self, number: int, group: str, count: int) -> None:
        for _ in range(count):
            await self._send(number, group)

    async def _send(self, number: int, group: str) -> int:
        message = self.checker.stamp(f"p{number}", group)
        try:
            await self._layers[number].group_send(group, message)
        except ChannelLayerUnavailable:
            self.checker.raised(message)
        return int(message["n"])

    async def settle(self) -> None:
        """Wait until no message is under way: until a later one of every layer has reached all members."""
        waiting = {(number, group) for number in range(len(self._layers)) for group in self._groups}
        with trio.fail_after(DEADLINE):
            while waiting:
                sent = {(number, group): await self._send(number, group) for number, group in sorted(waiting)}
                with trio.move_on_after(0.3):
                    await until(lambda sent=sent: all(self._came(*place, n) for place, n in sent.items()))
                waiting = {place for place, n in sent.items() if not self._came(*place, n)}

    def _came(self, number: int, group: str, n: int) -> bool:
        stream = (f"p{number}", group)
        return all(
            self._last[receiver.name].get(stream, -1) >= n
            for receiver in self.checker.receivers
            if group in receiver._groups
        )

    async def member(self, layer: RedisStreamsChannelLayer, name: str, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe to all groups, for ever."""
        async with layer.subscribe(*self._groups) as events:
            receiver = self.checker.receiver(name, *self._groups)
            task_status.started()
            async for item in events:
                self._take(receiver, item)

    def _take(self, receiver: Receiver, item: Any) -> None:
        if isinstance(item, Gap):
            self.gaps[receiver.name].append(item)
            receiver.got(item.as_event())
        else:
            self.delivered += 1
            self._last[receiver.name][item["publisher"], item["group"]] = item["n"]
            receiver.got(item)


@asynccontextmanager
async def traffic(
    layers: Sequence[RedisStreamsChannelLayer], *, members: int = 3, groups: Sequence[str] = ("room",)
) -> AsyncIterator[Traffic]:
    """Traffic with `members` members on each of the layers, which are open."""
    world = Traffic(layers, groups)
    async with trio.open_nursery() as nursery:
        for number, layer in enumerate(layers):
            for member in range(members):
                await nursery.start(world.member, layer, f"l{number}-m{member}")
        yield world
        nursery.cancel_scope.cancel()

"""P13: the cost of history: messages that are kept, and members that resume.

One ``group_send`` at a time; the next follows when every member has got the last. Each layer has three sides: without
the option *history*; with it, and a group that no pattern matches; and a group that keeps its messages. *resume* is a
join that gets 100 missed messages, *join* one that gets none.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio

from examples.private_redis import private_redis

from .harness import Comparison, Side, Stopwatch, Timing, Workload, main
from .p3_redis import server_cpu

#: Seconds for the whole side. Without it, a lost message would be waited for for ever.
DEADLINE = 200
MESSAGE = {"type": "chat.message", "user": 5, "text": "x" * 100}
MISSED = 100
HISTORY: dict[str, Any] = {"history": {"kept": {"messages": 200, "seconds": 3600}}}
#: For each side of a layer its options, and the group.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "without": ({}, "kept"),
    "unmatched": (HISTORY, "other"),
    "kept": (HISTORY, "kept"),
}


@contextmanager
def backend(name: str) -> Iterator[str]:
    """The address of a Redis of the side's own; empty for the in-memory layer."""
    if name == "memory":
        yield ""
        return
    with private_redis() as url:
        yield url


def make_layer(url: str, options: dict[str, Any]) -> Any:
    from trio_channels.layers import InMemoryChannelLayer
    from trio_channels.layers.redis import RedisStreamsChannelLayer

    return RedisStreamsChannelLayer(hosts=[url], **options) if url else InMemoryChannelLayer(**options)


async def measure(url: str, work: Callable[[int], Awaitable[None]], count: int) -> Timing:
    """Do the work after a warm-up; measure the processor time of Redis, too."""
    await work(max(1, count // 5))
    gc.collect()
    before = server_cpu(url) if url else 0.0
    with Stopwatch() as watch:
        await work(count)
    return watch.timing(count, server_us=((server_cpu(url) if url else 0.0) - before) / count * 1e6)


class Members:
    """The members of a group, and the end of the wait for their messages."""

    def __init__(self, layer: Any, group: str) -> None:
        self._layer = layer
        self._group = group
        self._missing = 0
        self._arrived = trio.Event()

    async def member(self, task_status: trio.TaskStatus[None]) -> None:
        async with self._layer.subscribe(self._group) as events:
            task_status.started()
            async for _ in events:
                self._missing -= 1
                if self._missing == 0:
                    self._arrived.set()

    async def send(self, members: int) -> None:
        """Send a message, and wait until all members have it."""
        self._missing, self._arrived = members, trio.Event()
        await self._layer.group_send(self._group, MESSAGE)
        await self._arrived.wait()


@asynccontextmanager
async def members_of(layer: Any, group: str, number: int) -> AsyncIterator[Members]:
    members = Members(layer, group)
    async with layer, trio.open_nursery() as nursery:
        for _ in range(number):
            await nursery.start(members.member)
        yield members
        nursery.cancel_scope.cancel()


def send(name: str, case: str, number: int, count: int) -> Timing:
    """Messages to so many members."""
    options, group = CASES[case]

    async def program(url: str) -> Timing:
        with trio.fail_after(DEADLINE):
            async with members_of(make_layer(url, options), group, number) as members:

                async def work(times: int) -> None:
                    for _ in range(times):
                        await members.send(number)

                return await measure(url, work, count)

    with backend(name) as url:
        return trio.run(program, url)


def join(name: str, missed: int, count: int) -> Timing:
    """Members that join, and read so many missed messages."""

    async def program(url: str) -> Timing:
        layer = make_layer(url, HISTORY)
        with trio.fail_after(DEADLINE):
            async with layer:
                since = (await layer.history("kept")).position
                for _ in range(missed):
                    await layer.group_send("kept", MESSAGE)

                async def work(times: int) -> None:
                    for _ in range(times):
                        async with layer.subscribe("kept", since=since if missed else None) as events:
                            for _ in range(missed):
                                await anext(events)

                return await measure(url, work, count)

    with backend(name) as url:
        return trio.run(program, url)


def sides(name: str, members: int, sends: int, joins: int) -> dict[str, Side]:
    """The sides of one layer."""
    return {f"{name}-{case}": Side(partial(send, name, case, members), sends) for case in CASES} | {
        f"{name}-join": Side(partial(join, name, 0), joins),
        f"{name}-resume": Side(partial(join, name, MISSED), joins),
    }


def comparisons(name: str) -> list[Comparison]:
    """Their comparisons."""
    without = f"{name}-without"
    made = [
        Comparison(
            f"{name}: no pattern matches / without, CPU", f"{name}-unmatched", without, slower=1.02, of="cpu_us"
        ),
        Comparison(f"{name}: kept / without, CPU", f"{name}-kept", without, slower=1.15, of="cpu_us"),
        Comparison(
            f"{name}: resume of {MISSED} / join, CPU", f"{name}-resume", f"{name}-join", slower=100, of="cpu_us"
        ),
    ]
    if name == "redis":
        made.append(Comparison("redis: kept / without, Redis' CPU", f"{name}-kept", without, of="server_us"))
    return made


WORKLOAD = Workload(
    name="p13_history",
    title="messages that are kept",
    unit="message or join",
    sides=sides("memory", 10, 10_000, 500) | sides("redis", 10, 2_000, 200),
    comparisons=[*comparisons("memory"), *comparisons("redis")],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))

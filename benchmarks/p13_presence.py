"""P13: a connection joins and leaves: with its key tracked, and as a member of a group alone.

With presence, the process watches the group, too. The member is the least that a connection costs which does anything
with a group. "Together" is 100 connections at a time, as after a deployment. One unit is one connection that joins and
leaves.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from examples.private_redis import private_redis

from ._redis_worlds import DEADLINE
from .harness import Comparison, Side, Stopwatch, Timing, Workload, main
from .p3_redis import server_cpu, warm_up

GROUP = "room"

#: One connection: joins, and leaves at the end of its mailbox.
Join = Callable[[Any, str, int], Awaitable[None]]


async def track(layer: Any, channel: str, number: int) -> None:
    await layer.track_channel(GROUP, channel, f"user-{number}", {"name": f"User {number}"})


async def add(layer: Any, channel: str, _number: int) -> None:
    await layer.group_add(GROUP, channel)


@asynccontextmanager
async def watched(layer: Any) -> AsyncIterator[None]:
    """Somebody watches the group."""
    import trio

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        async with layer.subscribe_presence(GROUP) as events:
            task_status.started()
            async for _ in events:
                pass

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        yield
        nursery.cancel_scope.cancel()


def run(backend: str, join: Join, together: int, count: int) -> Timing:
    """So many connections, `together` at a time."""
    import trio

    from trio_channels.layers import InMemoryChannelLayer
    from trio_channels.layers.redis import RedisStreamsChannelLayer

    async def work(layer: Any, numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, together):
            with ExitStack() as stack:
                mailboxes = [stack.enter_context(layer.open_mailbox()) for _ in range(together)]
                async with trio.open_nursery() as nursery:
                    for number, mailbox in enumerate(mailboxes, start):
                        nursery.start_soon(join, layer, mailbox.name, number)
                seen = layer.statistics()
                if seen.tracked + seen.memberships != together:
                    raise RuntimeError(f"expected {together} connections in the group; got {seen}")

    async def program(url: str | None) -> Timing:
        layer: Any = InMemoryChannelLayer() if url is None else RedisStreamsChannelLayer(hosts=[url])
        with trio.fail_after(DEADLINE):
            async with layer, watched(layer) if join is track else AsyncExitStack():
                await work(layer, range(max(together, warm_up(count))))
                before = 0.0 if url is None else server_cpu(url)
                with Stopwatch() as watch:
                    await work(layer, range(count))
                server = 0.0 if url is None else server_cpu(url) - before
                if await layer.presence(GROUP):
                    raise RuntimeError("a key has stayed in the group")
        return watch.timing(count, server_us=server / count * 1e6)

    with private_redis() if backend == "redis" else nullcontext(None) as url:
        return trio.run(program, url)


def sides() -> dict[str, Side]:
    """Every backend, join, and number at a time."""
    return {
        f"{backend}-{name}-{together}": Side(
            partial(run, backend, join, together), count, trial=partial(run, backend, join, 1)
        )
        for backend, count in (("memory", 10_000), ("redis", 2_000))
        for name, join in (("track", track), ("add", add))
        for together in (1, 100)
    }


def comparisons() -> list[Comparison]:
    """Tracking beside membership."""
    made = []
    for backend in ("memory", "redis"):
        for together, words in ((1, "one by one"), (100, "100 together")):
            names = f"{backend}-track-{together}", f"{backend}-add-{together}"
            made.append(Comparison(f"{backend}, {words}, CPU", *names, of="cpu_us"))
            if backend == "redis":
                made.append(Comparison(f"{backend}, {words}, Redis' CPU", *names, of="server_us"))
    return made


WORKLOAD = Workload(name="p13_presence", title="Presence", unit="connection", sides=sides(), comparisons=comparisons())

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))

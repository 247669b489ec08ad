"""P1: fan-out in memory. One ``group_send`` reaches N consumers, each of which sends the message to its client.

The server is a stub: its ``send`` lets other tasks run once, as every server's does at least, and then counts. The
driver starts the next round when every member's ``send`` of the last round has ended. At the end each member must have
been sent each message once, and no other message.

Sides: our in-memory layer and Channels' own, both with the plain consumer that a user would write; and a plain Trio
loop with one task and one memory channel per member, which is the lowest cost with a task per client.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import _django
from .harness import Comparison, Side, Stopwatch, Timing, Workload, main

TEXT = "hello, everybody in the room"
EVENT = {"type": "chat.message", "text": TEXT}

#: Seconds for the whole side. Without it, a dropped message would be waited for for ever.
DEADLINE = 200

SCOPE = {"type": "websocket", "path": "/room/", "headers": [], "subprotocols": []}


class Audience:
    """Knows when every member's client has got the current message: the accept, then one message a round."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.missing = 0
        self.all_arrived: Callable[[], object] = lambda: None

    def expect(self, all_arrived: Callable[[], object]) -> None:
        """Call a function when each client has got one message."""
        self.missing = self.members
        self.all_arrived = all_arrived


class Client:
    """One member's client: the part of the ASGI ``send`` that comes after the switch."""

    __slots__ = ("_audience", "received")

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self.received = 0

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send" and message["text"] == TEXT:
            self.received += 1
        elif message["type"] != "websocket.accept":
            raise RuntimeError(f"expected an accept or {TEXT!r}; got {message!r}")
        audience = self._audience
        audience.missing -= 1
        if audience.missing == 0:
            audience.all_arrived()


def verify(clients: Sequence[Client], rounds: int) -> None:
    """Raise unless every client was sent every message."""
    wrong = [client.received for client in clients if client.received != rounds]
    if wrong:
        raise RuntimeError(f"{len(wrong)} members did not get {rounds} messages; the first of them got {wrong[0]}")


def settle() -> None:
    """Collect the garbage of the start, so that only the rounds are measured."""
    gc.collect()


def warm_up_rounds(rounds: int) -> int:
    return max(1, rounds // 5)


# -- Trio: ours and the plain loop -------------------------------------------------------------------------------------


def ours(members: int, rounds: int) -> Timing:
    """An ``AsyncWebsocketConsumer`` per member, in one group of our in-memory layer."""
    _django.set_up(_django.OURS)
    import trio

    from trio_channels.generic.websocket import AsyncWebsocketConsumer
    from trio_channels.layers import get_channel_layer

    class Member(AsyncWebsocketConsumer):
        groups = ("room",)

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    application = Member.as_asgi()

    async def run() -> Timing:
        layer = get_channel_layer()
        audience = Audience(members)
        clients = [Client(audience) for _ in range(members)]
        leave = []

        async def one_round() -> None:
            arrived = trio.Event()
            audience.expect(arrived.set)
            await layer.group_send("room", EVENT)
            await arrived.wait()

        accepted = trio.Event()
        audience.expect(accepted.set)
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    to_server, receive = trio.open_memory_channel[dict[str, Any]](2)
                    to_server.send_nowait({"type": "websocket.connect"})
                    leave.append(to_server)
                    nursery.start_soon(application, dict(SCOPE), receive.receive, trio_send(client))
                await accepted.wait()
                timing = await measure_trio(members, rounds, one_round)
                for to_server in leave:
                    to_server.send_nowait({"type": "websocket.disconnect", "code": 1000})
        verify(clients, rounds + warm_up_rounds(rounds))
        return timing

    return trio.run(run)


def plain(members: int, rounds: int) -> Timing:
    """A task and a bounded memory channel per member, and a loop over the channels."""
    import trio

    async def member(receive_channel: Any, send: Callable[[dict[str, Any]], Any]) -> None:
        await send({"type": "websocket.accept"})
        async for event in receive_channel:
            await send({"type": "websocket.send", "text": event["text"]})

    async def run() -> Timing:
        audience = Audience(members)
        clients = [Client(audience) for _ in range(members)]
        channels: list[trio.MemorySendChannel[dict[str, Any]]] = []

        async def one_round() -> None:
            arrived = trio.Event()
            audience.expect(arrived.set)
            for channel in channels:
                channel.send_nowait(EVENT)
            await arrived.wait()

        accepted = trio.Event()
        audience.expect(accepted.set)
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    send_channel, receive_channel = trio.open_memory_channel[dict[str, Any]](100)
                    channels.append(send_channel)
                    nursery.start_soon(member, receive_channel, trio_send(client))
                await accepted.wait()
                timing = await measure_trio(members, rounds, one_round)
                for channel in channels:
                    channel.close()
        verify(clients, rounds + warm_up_rounds(rounds))
        return timing

    return trio.run(run)


def trio_send(client: Client) -> Callable[[dict[str, Any]], Any]:
    """The stub server's ``send`` on Trio."""
    import trio

    checkpoint, take = trio.lowlevel.checkpoint, client.take

    async def send(message: dict[str, Any]) -> None:
        await checkpoint()
        take(message)

    return send


async def measure_trio(members: int, rounds: int, one_round: Callable[[], Any]) -> Timing:
    import trio.testing

    for _ in range(warm_up_rounds(rounds)):
        await one_round()
    await trio.testing.wait_all_tasks_blocked()
    settle()
    with Stopwatch() as watch:
        for _ in range(rounds):
            await one_round()
    return watch.timing(rounds * members)


# -- asyncio: Channels -------------------------------------------------------------------------------------------------


def channels(members: int, rounds: int) -> Timing:
    """Channels' ``AsyncWebsocketConsumer`` per member, in one group of its in-memory layer."""
    _django.set_up(_django.CHANNELS)
    import asyncio

    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer

    class Member(AsyncWebsocketConsumer):
        groups = ("room",)

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    application = Member.as_asgi()

    def asyncio_send(client: Client) -> Callable[[dict[str, Any]], Any]:
        sleep, take = asyncio.sleep, client.take

        async def send(message: dict[str, Any]) -> None:
            await sleep(0)
            take(message)

        return send

    async def run() -> Timing:
        layer = get_channel_layer()
        audience = Audience(members)
        clients = [Client(audience) for _ in range(members)]
        leave = []

        async def one_round() -> None:
            arrived = asyncio.Event()
            audience.expect(arrived.set)
            await layer.group_send("room", EVENT)
            await arrived.wait()

        accepted = asyncio.Event()
        audience.expect(accepted.set)
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            for client in clients:
                events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(2)
                events.put_nowait({"type": "websocket.connect"})
                leave.append(events)
                group.create_task(application(dict(SCOPE), events.get, asyncio_send(client)))
            await accepted.wait()
            for _ in range(warm_up_rounds(rounds)):
                await one_round()
            settle()
            with Stopwatch() as watch:
                for _ in range(rounds):
                    await one_round()
            for events in leave:
                events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        verify(clients, rounds + warm_up_rounds(rounds))
        return watch.timing(rounds * members)

    return asyncio.run(run())


WORKLOAD = Workload(
    name="p1_fan_out",
    title="fan-out",
    unit="delivery",
    sides={
        "ours-100": Side(partial(ours, 100), 500, trial=partial(ours, 5)),
        "channels-100": Side(partial(channels, 100), 60, needs=("channels",), trial=partial(channels, 5)),
        "plain-100": Side(partial(plain, 100), 500, trial=partial(plain, 5)),
        "ours-1000": Side(partial(ours, 1_000), 150, trial=partial(ours, 5)),
        "channels-1000": Side(partial(channels, 1_000), 8, needs=("channels",), trial=partial(channels, 5)),
        "plain-1000": Side(partial(plain, 1_000), 150, trial=partial(plain, 5)),
    },
    comparisons=(
        Comparison("100 members, channels", "ours-100", "channels-100", faster=10),
        Comparison("1,000 members, channels", "ours-1000", "channels-1000", faster=30),
        Comparison("100 members, plain Trio loop", "ours-100", "plain-100", slower=1.6),
        Comparison("1,000 members, plain Trio loop", "ours-1000", "plain-1000", slower=1.6),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))

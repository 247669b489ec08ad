"""The worlds of P3: an event loop and a channel layer on Redis behind one interface, so each program is written once.

Members follow each layer's documentation: ours iterate over ``subscribe``, Channels' call ``receive``. The mailboxes
and inboxes of every side hold more messages than are ever sent, so that no layer drops one.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

GROUP = "room"

#: More messages than any side sends, so that none is dropped.
CAPACITY = 1_000_000

#: Seconds for the whole side. Without it, a lost message would be waited for for ever.
DEADLINE = 200

#: The message handler of a member.
Take = Callable[[dict[str, Any]], None]


class Flag(Protocol):
    """An event of either library."""

    def set(self) -> object: ...

    async def wait(self) -> object: ...


class World(ABC):
    """An event loop and a channel layer.

    Args:
        url: the address of the Redis.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def run(self, program: Callable[[], Awaitable[T]]) -> T:
        """Run a program in the event loop, for at most DEADLINE seconds."""

    @abstractmethod
    def members(self, make: Callable[[], Take], number: int) -> AbstractAsyncContextManager[Any]:
        """The channel layer, with members in the group, a task for each. The block begins when all have joined."""

    @abstractmethod
    def flag(self) -> Flag:
        """An event."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep."""

    @abstractmethod
    async def together(self, functions: list[Callable[[], Awaitable[None]]]) -> None:
        """Run each function in a task, and wait for all."""

    @abstractmethod
    async def read(self, pipe: socket.socket) -> bytes:
        """Wait for bytes, or for the end of the stream."""


class Ours(World):
    """Trio, and our layer."""

    def run(self, program: Callable[[], Awaitable[T]]) -> T:
        import trio

        async def main() -> T:
            with trio.fail_after(DEADLINE):
                return await program()

        return trio.run(main)

    @asynccontextmanager
    async def members(self, make: Callable[[], Take], number: int) -> AsyncIterator[Any]:
        import trio

        from trio_channels.layers.redis import RedisStreamsChannelLayer

        layer = RedisStreamsChannelLayer(hosts=[self.url], capacity=CAPACITY, inbox_capacity=CAPACITY)

        async def member(*, task_status: trio.TaskStatus[None]) -> None:
            take = make()
            async with layer.subscribe(GROUP) as events:
                task_status.started()
                async for message in events:
                    take(message)  # raises for a gap

        async with layer, trio.open_nursery() as nursery:
            for _ in range(number):
                await nursery.start(member)
            yield layer
            nursery.cancel_scope.cancel()

    def flag(self) -> Flag:
        import trio

        return trio.Event()

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    async def together(self, functions: list[Callable[[], Awaitable[None]]]) -> None:
        import trio

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def read(self, pipe: socket.socket) -> bytes:
        import trio

        await trio.lowlevel.wait_readable(pipe)
        return pipe.recv(4096)


class Asyncio(World):
    """asyncio, and one of the layers of ``channels_redis``."""

    @abstractmethod
    def layer(self) -> Any:
        """A new channel layer."""

    @property
    def patient_url(self) -> str:
        """The address with a long timeout: from version 8, ``redis`` gives up waiting for a message after 5 seconds."""
        return f"{self.url}?socket_timeout={DEADLINE}"

    def run(self, program: Callable[[], Awaitable[T]]) -> T:
        import asyncio

        async def main() -> T:
            async with asyncio.timeout(DEADLINE):
                return await program()

        return asyncio.run(main())

    @asynccontextmanager
    async def members(self, make: Callable[[], Take], number: int) -> AsyncIterator[Any]:
        import asyncio

        layer = self.layer()

        async def member(channel: str) -> None:
            take = make()
            while True:
                take(await layer.receive(channel))

        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(number):
                channel = await layer.new_channel()
                await layer.group_add(GROUP, channel)
                tasks.append(group.create_task(member(channel)))
            await self._settle(layer)
            yield layer
            while not all(task.done() for task in tasks):  # core's receive() swallows a cancellation now and then
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=5)

    async def _settle(self, layer: Any) -> None:
        """Wait until Redis knows the members.

        pubsub does not wait for its subscriptions. It makes them in order, so that a later one that works shows that
        all earlier ones do.
        """
        import asyncio

        channel = await layer.new_channel()
        arrived = asyncio.ensure_future(layer.receive(channel))
        while not arrived.done():
            await layer.send(channel, {"type": "settle"})
            await asyncio.wait([arrived], timeout=0.1)
        await arrived

    def flag(self) -> Flag:
        import asyncio

        return asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def together(self, functions: list[Callable[[], Awaitable[None]]]) -> None:
        import asyncio

        async def call(function: Callable[[], Awaitable[None]]) -> None:
            await function()

        async with asyncio.TaskGroup() as group:
            for function in functions:
                group.create_task(call(function))

    async def read(self, pipe: socket.socket) -> bytes:
        import asyncio

        return await asyncio.get_running_loop().sock_recv(pipe, 4096)


class Core(Asyncio):
    """The layer that stores messages in sorted sets."""

    def layer(self) -> Any:
        from channels_redis.core import RedisChannelLayer

        return RedisChannelLayer(hosts=[self.patient_url], capacity=CAPACITY)


class PubSub(Asyncio):
    """The layer on Redis' publish and subscribe, which stores nothing."""

    def layer(self) -> Any:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        return RedisPubSubChannelLayer(hosts=[self.patient_url])


WORLDS: dict[str, type[World]] = {"ours": Ours, "core": Core, "pubsub": PubSub}

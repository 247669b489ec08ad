"""On which threads a consumer's handlers run: one call, one thread."""

from __future__ import annotations

import threading
from typing import Any

import trio
from asgiref.sync import sync_to_async

from trio_channels._threads.pool import current_pool
from trio_channels.db import database_sync_to_async, pinned
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.sync import async_to_sync
from trio_channels.testing import WebsocketCommunicator

from .._http.common import until


async def test_handler_of_a_sync_consumer_has_one_thread() -> None:
    seen: list[int] = []

    async def call() -> None:
        seen.append(await sync_to_async(threading.get_ident)())
        seen.append(await database_sync_to_async(threading.get_ident)())

    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append(threading.get_ident())
            async_to_sync(call)()
            seen.append(threading.get_ident())
            self.send("done")

    current_pool(4)
    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("go")
        assert await client.receive_from() == "done"
    assert len(seen) == 4
    assert len(set(seen)) == 1


async def threads_of_two_calls(consumer: Any, nursery: trio.Nursery) -> list[int]:
    """Between the two calls of a handler, another task takes the thread that was used last, and holds it."""
    taken, leave = threading.Event(), threading.Event()
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("go")
        await until(lambda: consumer.first is not None)
        pool = current_pool()

        def hold() -> None:
            taken.set()
            leave.wait()

        nursery.start_soon(pool.run_sync, hold)
        await until(taken.is_set)
        consumer.go_on.set()
        try:
            first, second = (await client.receive_from()).split()
        finally:
            leave.set()
    return [int(first), int(second)]


async def test_calls_of_an_async_handler_stand_alone(nursery: trio.Nursery) -> None:
    class Consumer(AsyncWebsocketConsumer):
        first: int | None = None
        go_on = trio.Event()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            type(self).first = await sync_to_async(threading.get_ident)()
            await self.go_on.wait()
            await self.send(f"{self.first} {await sync_to_async(threading.get_ident)()}")

    first, second = await threads_of_two_calls(Consumer, nursery)
    assert first != second, "the handler did not hold its thread while it waited"


async def test_pinned_block_of_an_async_handler_has_one_thread(nursery: trio.Nursery) -> None:
    class Consumer(AsyncWebsocketConsumer):
        first: int | None = None
        go_on = trio.Event()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            async with pinned():
                type(self).first = await sync_to_async(threading.get_ident)()
                await self.go_on.wait()
                await self.send(f"{self.first} {await sync_to_async(threading.get_ident)()}")

    first, second = await threads_of_two_calls(Consumer, nursery)
    assert first == second

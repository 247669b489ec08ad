"""P2: echo. One consumer sends each message back; the client sends the next message when it has the answer.

The server is a stub: two bounded queues. Its ``send`` lets other tasks run once, as every server's does at least. Every
answer must equal its message.

Sides: asynchronous and synchronous consumers, ours and Channels', as a user would write them, in the same Django
project; our ``@websocket`` function; and a plain ASGI loop on Trio, which is the lowest cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import _django
from .harness import Comparison, Side, Stopwatch, Timing, Workload, main

SCOPE = {"type": "websocket", "path": "/echo/", "headers": [], "subprotocols": []}

#: The size of the queues between the stub server and the application. Hypercorn and uvicorn queue a few, too.
QUEUE = 16

#: Seconds for the whole side. Without it, a lost answer would be waited for for ever.
DEADLINE = 200


def warm_up(count: int) -> int:
    return max(1, count // 5)


def verify(message: dict[str, Any], text: str) -> None:
    """Raise unless a message is the answer."""
    if message["type"] != "websocket.send" or message.get("text") != text:
        raise RuntimeError(f"expected {text!r} to be sent back; got {message!r}")


# -- Trio --------------------------------------------------------------------------------------------------------------


def drive_trio(application: Callable[..., Any], count: int) -> Timing:
    """Run an ASGI application on Trio and echo through it."""
    import trio

    async def run() -> Timing:
        to_application, events = trio.open_memory_channel[dict[str, Any]](QUEUE)
        to_client, answers = trio.open_memory_channel[dict[str, Any]](QUEUE)

        async def echo(numbers: range) -> None:
            for number in numbers:
                text = f"message {number}"
                await to_application.send({"type": "websocket.receive", "text": text})
                verify(await answers.receive(), text)

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                # The send() of a memory channel is always a checkpoint.
                nursery.start_soon(application, dict(SCOPE), events.receive, to_client.send)
                await to_application.send({"type": "websocket.connect"})
                if (await answers.receive())["type"] != "websocket.accept":
                    raise RuntimeError("the application did not accept")
                await echo(range(warm_up(count)))
                with Stopwatch() as watch:
                    await echo(range(count))
                await to_application.send({"type": "websocket.disconnect", "code": 1000})
        return watch.timing(count)

    return trio.run(run)


def ours_async(count: int) -> Timing:
    """Our ``AsyncWebsocketConsumer``."""
    _django.set_up(_django.OURS)
    from trio_channels.generic.websocket import AsyncWebsocketConsumer

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    return drive_trio(Echo.as_asgi(), count)


def ours_sync(count: int) -> Timing:
    """Our ``WebsocketConsumer``."""
    _django.set_up(_django.OURS)
    from trio_channels.generic.websocket import WebsocketConsumer

    class Echo(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data, bytes_data=bytes_data)

    return drive_trio(Echo.as_asgi(), count)


def ours_websocket(count: int) -> Timing:
    """Our Trio-native ``@websocket``, which needs no Django project."""
    from trio_channels import WebSocket, websocket

    @websocket
    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws:
            await ws.send(message)

    return drive_trio(echo, count)


def plain(count: int) -> Timing:
    """A loop around ``receive`` and ``send``."""

    async def application(_scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": event["text"]})

    return drive_trio(application, count)


# -- asyncio -----------------------------------------------------------------------------------------------------------


def drive_asyncio(application: Callable[..., Any], count: int) -> Timing:
    """Run an ASGI application on asyncio and echo through it."""
    import asyncio

    async def run() -> Timing:
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE)
        answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE)

        async def send(message: dict[str, Any]) -> None:
            await answers.put(message)
            await asyncio.sleep(0)

        async def echo(numbers: range) -> None:
            for number in numbers:
                text = f"message {number}"
                await events.put({"type": "websocket.receive", "text": text})
                verify(await answers.get(), text)

        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            group.create_task(application(dict(SCOPE), events.get, send))
            await events.put({"type": "websocket.connect"})
            if (await answers.get())["type"] != "websocket.accept":
                raise RuntimeError("the application did not accept")
            await echo(range(warm_up(count)))
            with Stopwatch() as watch:
                await echo(range(count))
            await events.put({"type": "websocket.disconnect", "code": 1000})
        return watch.timing(count)

    return asyncio.run(run())


def channels_async(count: int) -> Timing:
    """Channels' ``AsyncWebsocketConsumer``."""
    _django.set_up(_django.CHANNELS)
    from channels.generic.websocket import AsyncWebsocketConsumer

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    return drive_asyncio(Echo.as_asgi(), count)


def channels_sync(count: int) -> Timing:
    """Channels' ``WebsocketConsumer``."""
    _django.set_up(_django.CHANNELS)
    from channels.generic.websocket import WebsocketConsumer

    class Echo(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data, bytes_data=bytes_data)

    return drive_asyncio(Echo.as_asgi(), count)


WORKLOAD = Workload(
    name="p2_echo",
    title="echo",
    unit="echo",
    sides={
        "ours-async": Side(ours_async, 20_000),
        "channels-async": Side(channels_async, 5_000, needs=("channels",)),
        "ours-sync": Side(ours_sync, 8_000),
        "channels-sync": Side(channels_sync, 4_000, needs=("channels",)),
        "ours-websocket": Side(ours_websocket, 20_000),
        "plain": Side(plain, 20_000),
    },
    comparisons=(
        Comparison("async consumer, channels", "ours-async", "channels-async", faster=5),
        Comparison("sync consumer, channels", "ours-sync", "channels-sync", faster=2.5),
        Comparison("@websocket, channels async", "ours-websocket", "channels-async"),
        Comparison("async consumer, plain Trio loop", "ours-async", "plain"),
        Comparison("@websocket, plain Trio loop", "ours-websocket", "plain"),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))

"""The memory of an idle WebSocket, counted in blocks: a regression is seen on any machine.

The bounds are the figures of Python 3.11, 180 blocks and 19.6 KiB with the client's own socket, and a tenth more.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing
from django.urls import path

from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

from .clients import HANDSHAKE, Server, frame, read_until, serving_ours

NUMBER = 40


class Room(AsyncWebsocketConsumer):
    groups = ["room"]


async def connect(server: Server, number: int, stack: AsyncExitStack) -> None:
    for _ in range(number):
        stream = await stack.enter_async_context(await server.connect())
        await stream.send_all(HANDSHAKE % (b"/ws/", b"Origin: http://localhost\r\n"))
        await read_until(stream, b"\r\n\r\n")
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()


async def test_idle_websocket_takes_little_memory() -> None:
    router = AllowedHostsOriginValidator(URLRouter([path("ws/", Room.as_asgi())]))
    async with serving_ours(ProtocolTypeRouter({"websocket": router})) as server, AsyncExitStack() as stack:
        await connect(server, 5, stack)
        tracer = sys.gettrace()
        sys.settrace(None)  # that of coverage takes memory for each frame
        tracemalloc.start()
        try:
            await connect(server, NUMBER, stack)
            blocks = [trace.size for trace in tracemalloc.take_snapshot().traces]
        finally:
            tracemalloc.stop()
            sys.settrace(tracer)
    assert len(blocks) / NUMBER <= 198
    assert sum(blocks) / NUMBER <= 21.6 * 1024


#: As much as comes with one read.
SIZE = 60_000


async def from_client(stream: trio.SocketStream, _layer: InMemoryChannelLayer) -> None:
    await stream.send_all(frame(2, bytes(SIZE)))


async def from_layer(_stream: trio.SocketStream, layer: InMemoryChannelLayer) -> None:
    await layer.group_send("room", {"type": "told", "data": bytes(SIZE)})


@pytest.mark.parametrize("send", [from_client, from_layer])
async def test_idle_websocket_keeps_no_message(send: Any) -> None:
    class Member(AsyncWebsocketConsumer):
        groups = ["room"]
        channel_layer = InMemoryChannelLayer()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(f"{len(bytes_data or b'')}")

        async def told(self, event: Any) -> None:
            await self.send(f"{len(event['data'])}")

    async with serving_ours(Member.as_asgi()) as server, AsyncExitStack() as stack:
        stream = await stack.enter_async_context(await server.connect())
        await stream.send_all(HANDSHAKE % (b"/", b""))
        await read_until(stream, b"\r\n\r\n")
        tracemalloc.start()
        try:
            await send(stream, Member.channel_layer)
            await read_until(stream, f"{SIZE}".encode())
            await trio.testing.wait_all_tasks_blocked()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < SIZE / 2

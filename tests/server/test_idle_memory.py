"""The memory of an idle WebSocket, counted in blocks: a regression is seen on any machine.

The bounds are the figures of Python 3.11, 197 blocks and 21 KB with the client's own socket, and a tenth more.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from contextlib import AsyncExitStack

import trio.testing
from django.urls import path

from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

from .clients import HANDSHAKE, Server, read_until, serving_ours

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
    assert len(blocks) / NUMBER <= 217
    assert sum(blocks) / NUMBER <= 23.5 * 1024

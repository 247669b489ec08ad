"""A Trio-native application: the function for a WebSocket, over the in-memory layer, and one call on a thread."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

from trio_channels import WebSocket, websocket
from trio_channels.layers import Gap, InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.sync import async_to_sync, sync_to_async

layer = InMemoryChannelLayer()


@websocket
async def room(ws: WebSocket) -> None:
    await ws.accept()
    async with layer.subscribe("room") as events:
        ws.start_soon(ws.send_each, texts(events))
        async for text in ws:
            await layer.group_send("room", {"type": "text", "text": await sync_to_async(on_thread)(str(text))})


async def texts(events: Any) -> AsyncIterator[str]:
    async for event in events:
        assert not isinstance(event, Gap)
        yield event["text"]


def on_thread(text: str) -> str:
    return async_to_sync(back_on_trio)(text, threading.current_thread().name)


async def back_on_trio(text: str, thread: str) -> str:
    return f"{text} by {thread.split()[0]}"


application = ProtocolTypeRouter({"websocket": room})

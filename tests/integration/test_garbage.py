"""A connection that has ended is freed at once: nothing of it is left in a reference cycle.

Otherwise the garbage collector frees it, and stops every connection while it searches the objects of all of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from trio_channels import WebSocket, websocket
from trio_channels._asgi.protocol import ASGIApplication, Message, Scope
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer

LAYER = InMemoryChannelLayer()

TIMES = 5

WEBSOCKET = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": '"hello"'}]
LEAVES = {"type": "websocket.disconnect", "code": 1000}
REQUEST = [{"type": "http.request", "body": b"", "more_body": False}]


class Failed(Exception):
    """The exception of the handlers here."""


class Member(AsyncWebsocketConsumer):
    channel_layer = LAYER
    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await LAYER.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: Message) -> None:
        await self.send(text_data=event["text"])


class Json(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json(content)


class Beside(Member):
    handler_concurrency = 2


class Background(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.start_soon(trio.sleep_forever)
        await self.send(text_data="started")


class Closes(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.close(4000)


class Fails(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise Failed


class FailsInTheBackground(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.start_soon(self.fail)

    async def fail(self) -> None:
        raise Failed


class Sync(WebsocketConsumer):
    channel_layer = LAYER
    groups = ("room",)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)


class SyncFails(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise Failed


@websocket
async def native(ws: WebSocket) -> None:
    await ws.accept()
    async with LAYER.subscribe("room") as messages:
        await LAYER.group_send("room", {"type": "chat.message", "text": await ws.receive()})
        async for message in messages:
            assert isinstance(message, dict)
            await ws.send(message["text"])


class Answers(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, b"done")


class Client:
    """Sends its events, and leaves when it has got `stays_for` messages; an acceptance does not count."""

    def __init__(self, scope_type: str, events: list[Message], leaves: Message, stays_for: int) -> None:
        self.scope: Scope = {"type": scope_type, "path": "/", "headers": [], "method": "GET", "subprotocols": []}
        self._events = list(events)
        self._leaves = leaves
        self._stays_for = stays_for
        self._got_all = trio.Event()

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._events:
            return self._events.pop(0)
        await self._got_all.wait()
        return self._leaves

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] != "websocket.accept":
            self._stays_for -= 1
        if not self._stays_for:
            self._got_all.set()


@contextmanager
def collected() -> Iterator[list[object]]:
    """The objects made in the block that only the garbage collector frees; the list is filled after the block."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()


def ours(found: list[object]) -> list[str]:
    """The objects of a connection, and exceptions, among those found."""
    return [
        repr(one)
        for one in found
        if type(one).__module__.startswith(("trio_channels.", __name__)) or isinstance(one, BaseException)
    ]


async def serve(application: ASGIApplication, client: Client) -> None:
    try:
        await application(client.scope, client.receive, client.send)
    except Failed:
        pass


@pytest.mark.parametrize("consumer", [Member, Json, Beside, Background, Closes, Fails, FailsInTheBackground])
async def test_of_an_asynchronous_consumer_nothing_is_left(consumer: type[AsyncWebsocketConsumer]) -> None:
    assert await left_by(consumer.as_asgi()) == []


@pytest.mark.parametrize("consumer", [Sync, SyncFails])
async def test_of_a_synchronous_consumer_nothing_is_left(consumer: type[WebsocketConsumer]) -> None:
    assert await left_by(consumer.as_asgi()) == []


async def test_of_a_native_endpoint_nothing_is_left() -> None:
    assert await left_by(native) == []


async def test_of_an_http_consumer_nothing_is_left() -> None:
    assert await left_by(Answers.as_asgi(), "http", REQUEST, {"type": "http.disconnect"}, stays_for=2) == []


async def test_what_is_left_would_be_seen() -> None:
    class Cyclic(Json):
        async def receive_json(self, content: Any) -> None:
            self.itself = self
            await super().receive_json(content)

    assert sum("Cyclic" in one for one in await left_by(Cyclic.as_asgi())) == TIMES


async def left_by(
    application: ASGIApplication,
    scope_type: str = "websocket",
    events: list[Message] = WEBSOCKET,
    leaves: Message = LEAVES,
    stays_for: int = 1,
) -> list[str]:
    await serve(application, Client(scope_type, events, leaves, stays_for))  # makes the objects that are made once
    with collected() as found:
        for _ in range(TIMES):
            await serve(application, Client(scope_type, events, leaves, stays_for))
    return ours(found)

"""Presence in consumers, async and sync, on every way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ConfigurationError, InvalidChannelLayerError, TooManyTrackedKeys
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket

PATIENCE = 20


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(presence={"keys": 2}, capacity=4)


class AsyncRoom(AsyncJsonWebsocketConsumer):
    def __init__(self, layer: Any) -> None:
        self.channel_layer = layer

    async def connect(self) -> None:
        await self.accept()
        await self.track("room", self.scope["path"], {"tab": 1})
        await self.send_json(sorted(await self.watch_presence("room")))

    async def receive_json(self, content: Any) -> None:
        command, *arguments = content
        if command == "fail":
            raise KeyError("on purpose")
        if command == "stuck":
            await trio.sleep_forever()
        await getattr(self, command)(*arguments)

    async def presence_diff(self, event: dict[str, Any]) -> None:
        await self.send_json([event["arrived"], event["departed"]])


class SyncRoom(JsonWebsocketConsumer):
    def __init__(self, layer: Any) -> None:
        self.channel_layer = layer

    def connect(self) -> None:
        self.accept()
        self.track("room", self.scope["path"], {"tab": 1})
        self.send_json(sorted(self.watch_presence("room")))

    def receive_json(self, content: Any) -> None:
        command, *arguments = content
        if command == "fail":
            raise KeyError("on purpose")
        getattr(self, command)(*arguments)

    def presence_diff(self, event: dict[str, Any]) -> None:
        self.send_json([event["arrived"], event["departed"]])


Room = type[AsyncRoom] | type[SyncRoom]
both = pytest.mark.parametrize("room", [AsyncRoom, SyncRoom], ids=["async", "sync"])


@asynccontextmanager
async def connected(room: Room, layer: InMemoryChannelLayer, path: str) -> AsyncIterator[WebsocketCommunicator]:
    async with WebsocketCommunicator(room.as_asgi(layer=layer), path) as client:
        assert (await client.connect())[0]
        yield client


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the layer's tables raise no event
            await trio.sleep(0.001)


@both
async def test_consumer_tracks_watches_and_leaves(layer: InMemoryChannelLayer, room: Room) -> None:
    async with connected(room, layer, "/ann") as ann:
        assert await ann.receive_json_from() == ["/ann"]
        async with connected(room, layer, "/bob") as bob:
            assert await bob.receive_json_from() == ["/ann", "/bob"]
            assert await ann.receive_json_from() == [["/bob"], []]
            await bob.disconnect()
        assert await ann.receive_json_from() == [[], ["/bob"]]
        await ann.send_json_to(["untrack", "room", "/ann"])
        assert await ann.receive_json_from() == [[], ["/ann"]]
        await ann.send_json_to(["unwatch_presence", "room"])
        await ann.send_json_to(["track", "room", "silent"])
        await until(lambda: layer.statistics().tracked == 1)
        assert await ann.receive_nothing()
    assert layer.statistics().tracked == 0


@both
async def test_crash_ends_what_it_tracks(layer: InMemoryChannelLayer, room: Room) -> None:
    async def crash() -> None:
        async with connected(room, layer, "/ann") as ann:
            await ann.receive_json_from()
            await ann.send_json_to(["fail"])
            await ann.receive_output()

    async with layer.subscribe_presence("room") as events:
        with pytest.raises(KeyError, match="on purpose"):
            await crash()
        with trio.fail_after(PATIENCE):
            assert [(await anext(events))["departed"] for _ in "12"] == [[], ["/ann"]]


async def test_cancellation_ends_what_it_tracks(layer: InMemoryChannelLayer) -> None:
    async with layer.subscribe_presence("room"):
        with trio.CancelScope() as scope:
            async with connected(AsyncRoom, layer, "/ann") as ann:
                await ann.receive_json_from()
                await ann.send_json_to(["stuck"])
                scope.cancel()
        await until(lambda: layer.statistics().tracked == 0)


async def test_overflow_ends_what_it_tracks(layer: InMemoryChannelLayer) -> None:
    async with connected(AsyncRoom, layer, "/ann") as ann:
        await ann.receive_json_from()
        [mailbox] = layer._hub().mailboxes.values()
        for _ in range(10):  # without a pause in which it could handle one
            mailbox.put(layer._envelope({"type": "presence.diff", "arrived": [], "departed": []}))
        with trio.fail_after(PATIENCE):
            while (output := await ann.receive_output())["type"] != "websocket.close":
                pass
        assert output["code"] == 1013
        await until(lambda: layer.statistics().tracked == 0)


async def test_too_many_keys_are_an_error_of_the_handler(layer: InMemoryChannelLayer) -> None:
    async def track_three() -> None:
        async with connected(AsyncRoom, layer, "/ann") as ann:
            for key in ("second", "third"):
                await ann.send_json_to(["track", "room", key])
            while (await ann.receive_output())["type"] != "websocket.close":
                pass

    with pytest.raises(TooManyTrackedKeys):
        await track_three()


@both
async def test_presence_without_a_layer_says_what_is_missing(room: Room) -> None:
    class Lonely(room):  # type: ignore[valid-type, misc]
        channel_layer_alias = "missing"

    async def connect() -> None:
        async with WebsocketCommunicator(Lonely.as_asgi(layer=None), "/") as client:
            await client.connect()
            await client.receive_output()

    with pytest.raises(InvalidChannelLayerError, match=r"Lonely needs a channel layer for presence.*'missing'"):
        await connect()


class AsyncMute(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.watch_presence("room")


class SyncMute(JsonWebsocketConsumer):
    def connect(self) -> None:
        self.watch_presence("room")


@pytest.mark.parametrize("consumer", [AsyncMute, SyncMute], ids=["async", "sync"])
async def test_watching_needs_a_handler(consumer: type[AsyncMute] | type[SyncMute]) -> None:
    async def connect() -> None:
        async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
            await client.connect()

    with pytest.raises(ConfigurationError, match=r"add a method presence_diff\(self, event\)"):
        await connect()


async def test_websocket_function_tracks_in_a_block(layer: InMemoryChannelLayer) -> None:
    @websocket
    async def room(ws: WebSocket) -> None:
        await ws.accept()
        async with layer.track("room", "ann"):
            async for _ in ws:
                await ws.send(",".join(await layer.presence("room")))

    async with WebsocketCommunicator(room, "/") as client:
        await client.connect()
        await client.send_to(text_data="who?")
        assert await client.receive_from() == "ann"
        await client.disconnect()
    assert await layer.presence("room") == {}

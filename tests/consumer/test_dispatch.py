"""An overridden ``dispatch()``: it gets the messages that have no handler, and none that a sender may not forge."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from trio_channels.consumer import AsyncConsumer, SyncConsumer
from trio_channels.exceptions import UnhandledMessage
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.testing import ScriptedConnection, WebsocketCommunicator


class Sees(AsyncWebsocketConsumer):
    groups = ("seen",)

    async def dispatch(self, message: Any) -> None:
        if message["type"].startswith("event."):
            await self.send(message["type"])
        else:
            await super().dispatch(message)

    async def known(self, event: Any) -> None:
        await self.send("known")


class SeesOnAThread(WebsocketConsumer):
    groups = ("seen",)

    def dispatch(self, message: Any) -> None:
        if message["type"].startswith("event."):
            self.send(message["type"])
        else:
            super().dispatch(message)

    def known(self, event: Any) -> None:
        self.send("known")


async def tell(*kinds: Any) -> None:
    for kind in kinds:
        await get_channel_layer().group_send("seen", {"type": kind})


@pytest.mark.parametrize("consumer", [Sees, SeesOnAThread])
async def test_dispatch_gets_messages_without_a_handler(consumer: Any) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await tell("event.news", "known", "event.more")
        assert [await client.receive_from() for _ in range(3)] == ["event.news", "known", "event.more"]


@pytest.mark.parametrize("consumer", [Sees, SeesOnAThread])
async def test_message_that_super_cannot_handle_is_logged(consumer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await tell("nobody.handles", "channel.layer.gap", "known")
        assert await client.receive_from() == "known"
    assert "ignores a channel layer message of type 'nobody.handles'" in caplog.text


class Records(AsyncConsumer):
    kinds: ClassVar[list[str]] = []

    async def dispatch(self, message: Any) -> None:
        self.kinds.append(message["type"])
        if message["type"] == "websocket.connect":
            await get_channel_layer().send(self.channel_name, {"type": "websocket.receive", "text": "forged"})
            await get_channel_layer().send(self.channel_name, {"type": None})
            await get_channel_layer().send(self.channel_name, {"type": "close"})
            await self.send({"type": "websocket.accept"})
        elif message["type"] == "close":
            await self.send({"type": "websocket.close"})


async def test_dispatch_gets_all_but_forged_events() -> None:
    Records.kinds.clear()
    async with WebsocketCommunicator(Records.as_asgi(), "/") as client:
        await client.connect()
        assert (await client.receive_output())["type"] == "websocket.close"
        await client.disconnect()
    assert Records.kinds == ["websocket.connect", "close", "websocket.disconnect"]


@pytest.mark.parametrize("base", [AsyncConsumer, SyncConsumer])
async def test_server_event_without_a_handler_is_an_error(base: Any) -> None:
    with pytest.raises(UnhandledMessage, match=r"the server delivered 'websocket\.connect', but Bare has no method"):
        await ScriptedConnection.websocket().run(type("Bare", (base,), {}).as_asgi())


@pytest.mark.parametrize("base", [AsyncConsumer, SyncConsumer])
async def test_consumer_without_a_router_has_no_lifespan(base: Any) -> None:
    # Raised at once, so that the server serves it without one.
    scripted = ScriptedConnection({"type": "lifespan"}, [{"type": "lifespan.startup"}])
    with pytest.raises(UnhandledMessage, match=r"the server delivered 'lifespan\.startup', but Bare has no method"):
        await scripted.run(type("Bare", (base,), {}).as_asgi())

"""The public API as a type checker must see it. Checked by mypy, never run."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, assert_type

import trio
from hypercorn.config import Config

from trio_channels import WebSocket, bridge, runner, websocket
from trio_channels import server as hardened
from trio_channels._asgi.protocol import ASGIApplication
from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.consumer import AsyncConsumer, SyncConsumer
from trio_channels.db import aatomic, aclose_old_connections, database_sync_to_async, pinned
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer
from trio_channels.health import HealthApplication, health
from trio_channels.layers import InMemoryChannelLayer, get_channel_layer
from trio_channels.layers.base import ChannelLayer, DeadLetter, Gap, History, LayerStatistics, Recovery
from trio_channels.log import ConnectionFilter
from trio_channels.proxy_headers import ProxyHeadersMiddleware
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.staticfiles import StaticFilesHandler
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import ChannelsLiveServerTestCase, LiveServer, WebsocketCommunicator
from trio_channels.testing.live import live_server
from trio_channels.worker import Acknowledge, ChannelStatistics, Worker, WorkerStatistics


class AsyncChat(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        assert_type(self.channel_layer, ChannelLayer | Any)
        await self.channel_layer.grup_send("room", {"type": "chat"})  # type: ignore[union-attr]
        assert_type(self.channel_name, str)
        assert_type(await self.send_json(content), None)
        assert_type(await self.close(code=4000, reason="enough"), None)
        self.start_soon(self.send, "text")


class SyncChat(JsonWebsocketConsumer):
    def receive_json(self, content: Any) -> None:
        assert_type(self.send_json(content), None)
        assert_type(self.accept(subprotocol="chat"), None)


@websocket
async def endpoint(ws: WebSocket) -> None:
    async for message in ws:
        assert_type(message, str | bytes)


@websocket(cancel_on_disconnect=False)
async def patient_endpoint(ws: WebSocket) -> None:
    assert_type(ws.close_code, int | None)


@sync_to_async
def add(left: int, right: int) -> int:
    return left + right


@database_sync_to_async
def name_of(number: int) -> str:
    return str(number)


async def double(number: int) -> int:
    return 2 * number


async def uses() -> None:
    assert_type(await add(1, right=2), int)
    assert_type(await name_of(1), str)
    assert_type(async_to_sync(double)(number=1), int)
    assert_type(get_channel_layer(), ChannelLayer | Any)
    layer = InMemoryChannelLayer(capacity=10, overflow="drop_oldest")
    assert_type(layer.statistics(), LayerStatistics)
    async with layer.subscribe("room") as events:
        messages: AsyncIterator[dict[str, Any] | Gap] = events
        async for item in messages:
            assert_type(item, dict[str, Any] | Gap)
        assert_type(events.recovery, dict[str, Recovery])
    assert_type(await layer.group_send("room", {"type": "news.item"}), str | None)
    assert_type(await layer.history("room", limit=5), History)
    assert_type(await AsyncConsumer().group_add("room", since="x"), Recovery)
    assert_type(SyncConsumer().group_add("room"), Recovery)
    InMemoryChannelLayer(overflow="drop")  # type: ignore[arg-type]
    InMemoryChannelLayer(capcity=10)  # type: ignore[call-arg]
    await add("1", 2)  # type: ignore[arg-type]


async def communicates() -> None:
    async with WebsocketCommunicator(AsyncChat.as_asgi(), "/ws/") as ws:
        assert_type(ws, WebsocketCommunicator)
        assert_type(await ws.receive_from(), str | bytes)


async def works(layer: ChannelLayer) -> None:
    worker = Worker(AsyncConsumer.as_asgi(), ["jobs"], layer, concurrency=2, ack="on-receive")
    assert_type(worker.statistics(), WorkerStatistics)
    assert_type(worker.statistics().draining, bool)
    assert_type(worker.statistics().channels, dict[str, ChannelStatistics])
    assert_type(worker.statistics().channels["jobs"].handled, int)
    assert_type(worker.statistics().channels["jobs"].oldest, float)
    assert_type(worker.grace, float)
    assert_type(await worker.run(), None)
    assert_type(worker.drain(), None)
    how: Acknowledge = "after-handler"
    Worker(AsyncConsumer.as_asgi(), "jobs", layer, ack=how, max_deliveries=3, claim_after=10, grace=5)
    assert_type(await layer.work_queue("jobs").dead_letters(), list[DeadLetter])
    Worker(AsyncConsumer.as_asgi(), ["jobs"], layer, ack="never")  # type: ignore[arg-type]


applications: list[ASGIApplication] = [
    endpoint,
    patient_endpoint,
    AsyncChat.as_asgi(),
    SyncChat.as_asgi(room="lobby"),
    WebsocketConsumer.as_asgi(),
    AsyncConsumer.as_asgi(),
    SyncConsumer.as_asgi(),
    get_asgi_application(),
    health,
    ProxyHeadersMiddleware(health, trusted=["unix"]),
    ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter([])))}),
]


def lives(case: ChannelsLiveServerTestCase) -> None:
    with live_server() as server:
        assert_type(server, LiveServer)
        assert_type(server + "/chat/", str)
    assert_type(case.live_server_ws_url, str)


def serving(application: ASGIApplication) -> None:
    StaticFilesHandler(application)
    ProxyHeadersMiddleware(application, trusted=["10.0.0.0/8", "unix"], headers="forwarded", host=True)
    ProxyHeadersMiddleware(application, trusted=["10.0.0.0/8"], headers="via")  # type: ignore[arg-type]
    ProxyHeadersMiddleware(application, ["10.0.0.0/8"])
    HealthApplication({"default": InMemoryChannelLayer()}, tolerate_outages=True)
    assert_type(health, HealthApplication)
    assert_type(health.report(), dict[str, Any])
    logging.getLogger().handlers[0].addFilter(ConnectionFilter())


async def embedding(nursery: trio.Nursery, stop: trio.Event) -> None:
    for application in applications:
        assert_type(await hardened.serve(application, Config(), shutdown_trigger=stop.wait), None)
    await hardened.serve(health, Config())
    await nursery.start(hardened.serve, get_asgi_application(), Config())
    seen = hardened.statistics()
    assert_type(seen, hardened.ServerStatistics)
    assert_type(
        (seen.connections, seen.websockets, seen.requests, seen.accepted, seen.refused), tuple[int, int, int, int, int]
    )
    assert_type(seen.ended, dict[str, int])
    assert_type(seen.ending, bool)
    await hardened.serve(health)  # type: ignore[call-arg]
    await hardened.serve(health.report, Config())  # type: ignore[arg-type]


def process_wide() -> None:
    assert_type(hardened.install(), bool)
    assert_type(bridge.install(), None)
    assert_type(bridge.installed(), bool)
    assert_type(runner.main(["serve", "mysite.asgi"]), int)
    assert_type((runner.CANNOT_START, runner.CRASHED), tuple[int, int])


@aatomic()
async def transfer(amount: int) -> str:
    async with aatomic("default", savepoint=False, timeout=5), pinned() as nothing:
        assert_type(nothing, None)
    await aclose_old_connections()
    return str(amount)


async def call_transfer() -> None:
    assert_type(await transfer(1), str)

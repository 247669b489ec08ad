"""The metrics of one served process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from trio_channels.layers import channel_layers
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.server import serve

from ..integration.server.conftest import Server, config_for_tests
from ..redis_server import RedisServer
from .scraping import Scraped, scrape_server

CHAT = "chat/<str:name>/"


@asynccontextmanager
async def served(settings: Any) -> AsyncIterator[Server]:
    from .site import make_site

    settings.ROOT_URLCONF = "tests.metrics.site"
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (bind,) = await nursery.start(partial(serve, make_site(), config_for_tests(), shutdown_trigger=stop.wait))
        yield Server(int(bind.rsplit(":", 1)[1]))
        stop.set()


async def scraped_when(server: Server, name: str, value: float, **labels: str) -> Scraped:
    """Ask until a figure has a value: a close takes a moment to be seen."""
    while (scraped := await scrape_server(server.port)).of(name, **labels) != value:
        await trio.lowlevel.checkpoint()
    return scraped


@pytest.fixture(params=["memory", "redis"])
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        layer = RedisStreamsChannelLayer(hosts=[redis.url], prefix="metrics")
        monkeypatch.setitem(channel_layers.backends, "default", layer)


@pytest.mark.usefixtures("layer")
async def test_chat_is_counted_by_its_route(settings: Any) -> None:
    with trio.fail_after(60):
        async with served(settings) as server:
            async with server.websocket("/chat/anna/") as anna, server.websocket("/chat/bert/") as bert:
                before = (await scrape_server(server.port)).of("layer_sent_total", layer="default", call="group_send")
                await anna.send_message("hello")
                assert (await anna.get_message()).endswith(" hello")
                assert (await bert.get_message()).endswith(" hello")
                seen = await scrape_server(server.port)
                assert seen.of("connections", protocol="websocket", route=CHAT) == 2
                assert seen.of("connections_opened_total", protocol="websocket", route=CHAT) == 2
                assert seen.of("websocket_received_total", route=CHAT) == 1
                assert seen.of("websocket_sent_total", route=CHAT) == 2
                after = seen.of("layer_sent_total", layer="default", call="group_send")
                assert (after or 0) - (before or 0) == 1
                assert seen.of("layer_healthy", layer="default") == 1
                assert seen.of("layer_memberships", layer="default") == 2
                assert seen.of("server_connections") == 3
                await anna.aclose(4001, "bye")
                await bert.aclose(1001)
            seen = await scraped_when(server, "connections", 0, protocol="websocket", route=CHAT)
            assert seen.of("websocket_closes_total", route=CHAT, code="1001") == 1
            assert seen.of("websocket_closes_total", route=CHAT, code="other") == 1  # a client can send any code
            # two handshakes, a message, and the group's message to each of the two
            assert seen.of("handler_seconds_count", protocol="websocket", route=CHAT) == 5


async def test_path_never_becomes_a_label(settings: Any) -> None:
    async with served(settings) as server:
        async with server.websocket("/chat/secretname/") as client:
            await client.send_message("secretgroup")
            await client.get_message()
        for path in ("/greet/secretname/", "/secretpath/"):
            await server.request("GET", path)
        seen = await scrape_server(server.port)
        assert not any("secret" in str(sample.labels) for sample in seen.samples)


async def test_requests_are_counted_by_djangos_route_and_status(settings: Any) -> None:
    async with served(settings) as server:
        for name in ("anna", "bert", "nobody"):
            await server.request("GET", f"/greet/{name}/")
        await server.request("GET", "/nowhere/")
        seen = await scrape_server(server.port)
        route = "greet/<str:name>/"
        assert seen.of("responses_total", route=route, status="200") == 2
        assert seen.of("responses_total", route=route, status="410") == 1
        assert seen.of("responses_total", route="", status="404") == 1
        assert seen.of("request_seconds_count", route=route) == 3
        assert (seen.of("threads_calls_total") or 0) >= 4
        assert seen.of("threads_limit") == 10


async def test_failed_handler_is_counted(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with served(settings) as server:
        async with server.websocket("/chat/anna/") as client:
            await client.send_message("error")
            with pytest.raises(ConnectionClosed):
                await client.get_message()
        seen = await scraped_when(server, "connections", 0, protocol="websocket", route=CHAT)
        assert seen.of("connections_failed_total", protocol="websocket", route=CHAT) == 1
        assert seen.of("websocket_closes_total", route=CHAT, code="1011") == 1


async def test_event_loops_lag_is_measured(settings: Any) -> None:
    async with served(settings) as server:
        while not (await scrape_server(server.port)).of("event_loop_lag_seconds_count"):
            await trio.lowlevel.checkpoint()

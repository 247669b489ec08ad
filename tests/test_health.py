"""The health application: red when a layer is down, and nothing in it that is not a number."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import pytest
import trio

from trio_channels._connection.registry import connections
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.health import HealthApplication, health
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import LayerStatistics
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import serve, statistics
from trio_channels.sync import sync_to_async
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator

from .integration.server.conftest import Server, config_for_tests


async def ask(application: Any = health, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    response = await HttpCommunicator(application, method, "/healthz").get_response()
    return response["status"], dict(response["headers"]), response["body"]


@dataclasses.dataclass(frozen=True)
class Statistics(LayerStatistics):
    address: str = "redis://:secret@example.com"


class Layer(InMemoryChannelLayer):
    """One that can say that it is down."""

    healthy = True

    def statistics(self) -> LayerStatistics:
        return Statistics(**dataclasses.asdict(super().statistics()) | {"healthy": self.healthy})


async def test_process_that_is_well_answers_200_with_its_numbers() -> None:
    status, headers, body = await ask()
    report = json.loads(body)
    assert status == 200
    assert report["status"] == "ok"
    assert report["layers"]["default"]["healthy"] is True
    assert set(report["layers"]["default"]) > {"channels", "groups", "waiting"}
    assert report["pool"] is None
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-length"] == b"%d" % len(body)


async def test_layer_that_is_down_makes_it_red() -> None:
    layers = {"good": InMemoryChannelLayer(), "bad": Layer()}
    application = HealthApplication(layers)
    assert (await ask(application))[0] == 200
    layers["bad"].healthy = False  # type: ignore[attr-defined]
    status, _, body = await ask(application)
    assert status == 503
    assert json.loads(body)["status"] == "unhealthy"
    assert [layer["healthy"] for layer in json.loads(body)["layers"].values()] == [True, False]


async def test_layer_that_cannot_be_asked_is_down(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statistics() -> LayerStatistics:
        raise OSError("redis://:secret@example.com")

    monkeypatch.setattr(channel_layers["default"], "statistics", statistics)
    status, _, body = await ask()
    assert status == 503
    assert b"secret" not in body
    assert [record.name for record in caplog.records] == ["trio_channels.health"]


async def test_answer_holds_no_text_of_the_statistics() -> None:
    assert b"secret" not in (await ask(HealthApplication({"default": Layer()})))[2]


async def test_worker_threads_and_connections_are_counted() -> None:
    await sync_to_async(int)()
    async with WebsocketCommunicator(AsyncWebsocketConsumer.as_asgi(), "/") as client:
        await client.connect()
        report = json.loads((await ask())[2])
    assert report["pool"]["workers"] == 1
    assert report["connections"] == {"websocket": 1}


async def test_connection_that_has_ended_counts_no_more() -> None:
    async with WebsocketCommunicator(AsyncWebsocketConsumer.as_asgi(), "/") as client:
        await client.connect()
        assert connections() == {"websocket": 1}
    assert connections() == {"websocket": 0}


async def test_ending_server_takes_no_new_connections() -> None:
    stop, going_on = trio.Event(), trio.Event()
    statuses: list[tuple[int, str]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await going_on.wait()
        await health(scope, receive, send)

    async def ask_over(server: Server, path: str) -> None:
        response = await server.request("GET", path)
        report = json.loads(response.body)
        assert report["server"]["requests"] == 1
        statuses.append((response.status, report["status"]))

    async with trio.open_nursery() as nursery:
        router = ProtocolTypeRouter({"http": application})
        (bind,) = await nursery.start(partial(serve, router, config_for_tests(), shutdown_trigger=stop.wait))
        server = Server(int(bind.rsplit(":", 1)[1]))
        await ask_over(server, "/healthz")
        nursery.start_soon(ask_over, server, "/wait")
        while not statistics().requests:
            await trio.lowlevel.checkpoint()
        stop.set()
        while not statistics().ending:
            await trio.lowlevel.checkpoint()
        going_on.set()
    assert statuses == [(200, "ok"), (503, "ending")]


async def test_head_gets_the_same_without_the_body() -> None:
    status, headers, body = await ask(method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_not_allowed(method: str) -> None:
    status, headers, _ = await ask(method=method)
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


async def test_websocket_is_denied() -> None:
    communicator = WebsocketCommunicator(health, "/healthz")
    assert (await communicator.connect())[0] is False


async def test_another_scope_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lifespan"):
        await health({"type": "lifespan"}, trio.sleep_forever, trio.sleep)


def test_it_says_whose_health_it_is() -> None:
    assert repr(health) == "<HealthApplication for CHANNEL_LAYERS>"
    assert repr(HealthApplication({"a": InMemoryChannelLayer()})) == "<HealthApplication for a>"

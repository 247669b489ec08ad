"""The metrics application: access to it, and the content of its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_channels._http.client import Client, ClientLeft
from trio_channels._http.recorded import ServedRequest
from trio_channels._metrics import recording
from trio_channels._metrics.snapshot import FAMILIES, encode
from trio_channels.consumer import AsyncConsumer
from trio_channels.exceptions import ConfigurationError, WorkerPoolBusy
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.metrics import MetricsApplication, collecting
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.worker import Worker

from .scraping import scrape


async def status_of(application: Any, method: str = "GET", headers: Any = (), **scope: Any) -> int:
    communicator = HttpCommunicator(application, method, "/metrics", headers=list(headers))
    communicator.scope.update(scope)
    status: int = (await communicator.get_response())["status"]
    return status


async def test_answer_is_openmetrics() -> None:
    response = await HttpCommunicator(MetricsApplication(), "GET", "/metrics").get_response()
    headers = dict(response["headers"])
    assert response["status"] == 200
    assert headers[b"content-type"].startswith(b"application/openmetrics-text")
    assert headers[b"cache-control"] == b"no-store"
    assert response["body"].endswith(b"# EOF\n")
    assert int(headers[b"content-length"]) == len(response["body"])


async def test_head_gets_no_body() -> None:
    response = await HttpCommunicator(MetricsApplication(), "HEAD", "/metrics").get_response()
    assert (response["status"], response["body"]) == (200, b"")


async def test_another_method_is_not_allowed() -> None:
    assert await status_of(MetricsApplication(), "POST") == 405


async def test_websocket_is_denied() -> None:
    accepted, _ = await WebsocketCommunicator(MetricsApplication(), "/metrics").connect()
    assert not accepted


async def test_other_scope_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expects an 'http' scope; got 'lifespan'"):
        await MetricsApplication()({"type": "lifespan"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        (b"Bearer sesame", 200),
        (b"bearer  sesame", 200),
        (b"Bearer sesam", 401),
        (b"Bearer sesame2", 401),
        (b"Basic sesame", 401),
        (b"sesame", 401),
        (b"Bearer", 401),
        (b"Bearer \xff\xfe", 401),
    ],
)
async def test_token_opens_it(header: bytes | None, status: int) -> None:
    headers = [] if header is None else [(b"authorization", header)]
    assert await status_of(MetricsApplication(token="sesame"), headers=headers) == status


@pytest.mark.parametrize(
    ("server", "status"),
    [(("127.0.0.1", 9100), 200), (("127.0.0.1", 8000), 404), (("/run/socket", None), 404), (None, 404)],
)
async def test_port_of_its_own_is_the_only_one(server: Any, status: int) -> None:
    assert await status_of(MetricsApplication(port=9100), server=server) == status


@pytest.mark.parametrize("arguments", [{"token": ""}, {"token": "ü"}, {"token": 3}, {"port": 0}, {"port": "80"}])
def test_impossible_argument_is_refused(arguments: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"of a MetricsApplication must be"):
        MetricsApplication(**arguments)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trio-channels\[metrics\]'"):
        MetricsApplication()


def test_nothing_is_recorded_without_an_application() -> None:
    assert recording.series_for({"type": "websocket"}) is None


def test_repr_does_not_tell_the_token() -> None:
    assert repr(MetricsApplication(token="sesame")) == "<MetricsApplication with a token>"
    assert repr(MetricsApplication()) == "<MetricsApplication>"


async def test_layer_that_cannot_be_asked_is_not_healthy(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemoryChannelLayer):
        def statistics(self) -> Any:
            raise RuntimeError("redis://:secret@example.com")

    scraped = await scrape(MetricsApplication(layers={"good": InMemoryChannelLayer(), "bad": Broken()}))
    assert scraped.of("layer_healthy", layer="good") == 1
    assert scraped.of("layer_healthy", layer="bad") == 0
    assert "are not available" in caplog.text
    assert not any("secret" in str(sample) for sample in scraped.samples)


async def test_backlog_and_dead_letters_of_a_queue_are_counted() -> None:
    layer = InMemoryChannelLayer()
    await layer.send("thumbnails", {"type": "make"})
    await layer.send("thumbnails", {"type": "make"})
    async with layer.work_queue("thumbnails").serve() as source:
        (delivery,) = await source.take(1)
        await source.bury(delivery, "because")
        scraped = await scrape(MetricsApplication(layers={"jobs": layer}, queues=[("jobs", "thumbnails")]))
    assert scraped.of("queue_backlog", layer="jobs", channel="thumbnails") == 1
    assert scraped.of("queue_dead", layer="jobs", channel="thumbnails") == 1


async def test_queue_whose_backend_is_away_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    layers = {"away": RedisStreamsChannelLayer()}
    scraped = await scrape(MetricsApplication(layers=layers, queues=[("away", "thumbnails")]))
    assert scraped.of("queue_backlog", channel="thumbnails") is None
    assert "the size of the queue 'thumbnails' is not available" in caplog.text


async def test_sum_that_cannot_be_had_is_503() -> None:
    async def others() -> bytes:
        raise trio.TooSlowError

    application = MetricsApplication()
    recording.start().others = others
    assert await status_of(application) == 503


async def test_answer_is_the_sum_of_the_others_where_there_are_some() -> None:
    async def others() -> bytes:
        return encode({("trio_channels_threads_waiting", ()): [42.0]})

    application = MetricsApplication()
    recording.start().others = others
    assert (await scrape(application)).of("threads_waiting") == 42


async def test_worker_in_this_process_is_counted() -> None:
    handled = trio.Event()

    class Thumbnails(AsyncConsumer):
        async def thumbnails_make(self, message: dict[str, Any]) -> None:
            handled.set()

    layer = InMemoryChannelLayer()
    application = MetricsApplication(layers={"jobs": layer})
    await layer.send("thumbnails", {"type": "thumbnails.make"})
    async with trio.open_nursery() as nursery:
        worker = Worker(Thumbnails.as_asgi(), ["thumbnails"], layer)
        nursery.start_soon(worker.run)
        await handled.wait()
        while not worker.statistics().channels["thumbnails"].handled:
            await trio.lowlevel.checkpoint()
        scraped = await scrape(application)
        worker.drain()
    assert scraped.of("worker_messages_total", channel="thumbnails", outcome="handled") == 1
    assert scraped.of("worker_messages_total", channel="thumbnails", outcome="failed") == 0
    assert scraped.of("connections_opened_total", protocol="channel", route="thumbnails") == 1
    assert (await scrape(application)).of("worker_running", channel="thumbnails") is None  # the worker has ended


async def test_handlers_side_by_side_and_those_that_fail_are_timed() -> None:
    class Parallel(AsyncWebsocketConsumer):
        handler_concurrency = 2

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise RuntimeError("as asked")

    application = MetricsApplication()
    async with WebsocketCommunicator(Parallel.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="hello")
        with pytest.raises(RuntimeError, match="as asked"):
            await client.wait()
    scraped = await scrape(application)
    assert scraped.of("handler_seconds_count", protocol="websocket") == 1  # `receive`; the handshake is not timed
    assert scraped.of("connections_failed_total", protocol="websocket") == 1


async def test_system_without_proc_tells_the_processor_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PROC", Path("/nowhere"))
    scraped = await scrape(MetricsApplication())
    assert (scraped.of("process_cpu_seconds_total") or 0) > 0
    assert scraped.of("process_open_fds") is None


@pytest.mark.parametrize(
    ("error", "status"), [(None, 0), (trio.Cancelled, 0), (ClientLeft, 0), (WorkerPoolBusy, 503), (ValueError, 500)]
)
def test_request_that_ends_with_an_error_has_its_status(error: Any, status: int) -> None:
    recording.start()
    client = Client({"type": "http", "path": "/", "method": "GET", "headers": []}, None, None)  # type: ignore[arg-type]

    async def fail() -> None:
        request = ServedRequest(client)
        request.__enter__()
        request.__exit__(error, None, None)

    trio.run(fail)
    assert recording.start().requests[""].statuses == {str(status): 1}


async def test_process_and_its_start_are_told() -> None:
    scraped = await scrape(MetricsApplication())
    assert (scraped.of("process_cpu_seconds_total") or 0) > 0
    assert (scraped.of("process_start_time_seconds") or 0) > 1_000_000_000
    assert scraped.of("processes", state="answering") == 1


def test_every_family_has_a_name_and_a_help_that_openmetrics_takes() -> None:
    for name, family in FAMILIES.items():
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_created", "_info")), name
        assert family.help.endswith("."), name
        assert len(set(family.labels)) == len(family.labels)

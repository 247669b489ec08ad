"""The metrics application: who gets an answer, and what is in it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from trio_channels._metrics import recording
from trio_channels._metrics.snapshot import FAMILIES
from trio_channels.exceptions import ConfigurationError
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.metrics import MetricsApplication
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator

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

"""The channel layers are open while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from django.test import override_settings

from trio_channels.exceptions import ConfigurationError
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.lifespan import as_application
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.testing import ApplicationCommunicator

happened: list[str] = []


class Layer(InMemoryChannelLayer):
    """Writes down when it is opened and closed; may fail."""

    def __init__(self, name: str, fail_on: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.name = name
        self.fail_on = fail_on

    async def __aenter__(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self.fail_on == "open":
            raise ConnectionRefusedError("no backend there")
        happened.append(f"{self.name} opened")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self.fail_on == "close":
            raise ConnectionResetError("the backend went")
        happened.append(f"{self.name} closed")
        await self.close()


@contextmanager
def layers(**configs: dict[str, Any]) -> Iterator[None]:
    happened.clear()
    settings = {
        alias: {"BACKEND": f"{__name__}.Layer", "CONFIG": {"name": alias, **config}}
        for alias, config in configs.items()
    }
    with override_settings(CHANNEL_LAYERS=settings):
        yield


def server() -> ApplicationCommunicator:
    return ApplicationCommunicator(ProtocolTypeRouter({}), {"type": "lifespan", "asgi": {"version": "3.0"}})


async def test_every_layer_is_open_between_start_up_and_shutdown() -> None:
    with layers(default={}, other={}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            assert await lifespan.receive_output() == {"type": "lifespan.startup.complete"}
            assert happened == ["default opened", "other opened"]
            await lifespan.send_input({"type": "lifespan.shutdown"})
            assert await lifespan.receive_output() == {"type": "lifespan.shutdown.complete"}
            assert happened[2:] == ["other closed", "default closed"]
            await lifespan.wait()


async def test_layer_that_is_opened_is_the_one_that_consumers_get() -> None:
    with layers(default={}):
        before = channel_layers["default"]
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            await lifespan.receive_output()
            assert channel_layers["default"] is before


async def test_project_without_layers_starts() -> None:
    with override_settings(CHANNEL_LAYERS={}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            assert (await lifespan.receive_output())["type"] == "lifespan.startup.complete"


async def test_layer_that_cannot_be_opened_is_logged_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with layers(default={}, other={"fail_on": "open"}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            assert await lifespan.receive_output() == {
                "type": "lifespan.startup.failed",
                "message": "ConnectionRefusedError: no backend there",
            }
            await lifespan.wait()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.lifespan", logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConnectionRefusedError)
    assert happened == ["default opened", "default closed"]


async def test_layer_that_is_configured_wrongly_fails_the_start_up(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "no.such.Layer"}}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            answer = await lifespan.receive_output()
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("a channel layer cannot be opened: CHANNEL_LAYERS['default']: cannot import")
    assert caplog.records == []  # the server logs the message


async def test_layer_that_cannot_be_closed_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    with layers(default={}, other={"fail_on": "close"}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            await lifespan.receive_output()
            await lifespan.send_input({"type": "lifespan.shutdown"})
            answer = await lifespan.receive_output()
            await lifespan.wait()
    assert answer == {"type": "lifespan.shutdown.failed", "message": "ConnectionResetError: the backend went"}
    assert [record.name for record in caplog.records] == ["trio_channels.lifespan"]
    assert happened[-1] == "default closed"


async def test_server_that_cancels_the_lifespan_has_the_layers_closed() -> None:
    with layers(default={}):
        async with server() as lifespan:
            await lifespan.send_input({"type": "lifespan.startup"})
            await lifespan.receive_output()
        assert happened == ["default opened", "default closed"]


def test_server_on_asyncio_does_not_start_and_says_why() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with layers(default={}):
        asyncio.run(ProtocolTypeRouter({})({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "use `trio-channels serve`, or `hypercorn --worker-class trio`" in sent[0]["message"]
    assert happened == []


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_asyncio_server_is_told_with_each_connection(kind: str) -> None:
    async def nothing(*_args: Any) -> None:
        raise AssertionError("not called")

    application = ProtocolTypeRouter({kind: nothing})
    with pytest.raises(ConfigurationError, match="hypercorn --worker-class trio"):
        asyncio.run(application({"type": kind, "path": "/"}, nothing, nothing))


async def no_yield() -> None:
    """Forgot the yield."""


def takes_one(app: object) -> None: ...


@pytest.mark.parametrize(
    ("entry", "error"), [(no_yield, r"no_yield\(\) has no yield"), (takes_one, r"got takes_one\(app: 'object'\)")]
)
def test_entry_that_is_no_lifespan_is_refused(entry: Any, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        ProtocolTypeRouter({"lifespan": entry})


class Odd:
    """Its signature cannot be known."""

    __signature__ = 3

    async def __call__(self, *_args: object) -> None: ...


def test_callable_without_a_signature_is_an_application() -> None:
    odd = Odd()
    assert as_application(odd) is odd

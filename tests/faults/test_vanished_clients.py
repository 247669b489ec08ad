"""Clients that vanish from a real server, hypercorn, while their application goes on: the others are served."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from trio_websocket import open_websocket_url

from trio_channels._limits import Limits
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.websocket import WebSocket, websocket

pytestmark = pytest.mark.faults

#: Senders whose clients vanish at once. Each of them alone froze the process on bare hypercorn, whose send after a
#: disconnect neither raises nor lets another task run.
SENDERS = 20
#: At least so many echoes go on beside them, and until the last of them has ended.
ECHOES = 200


@pytest.fixture(autouse=True)
def unhardened(settings: Any) -> None:
    """The applications leave hypercorn as it is."""
    settings.TRIO_CHANNELS = {"HARDEN_HYPERCORN": False}


LIMITS = Limits(disconnect_timeout=0.2, close_timeout=0.2)


@asynccontextmanager
async def hypercorn(applications: dict[str, Any]) -> AsyncIterator[str]:
    """A server with an application for each path; yields its base URL."""

    async def by_path(scope: Any, receive: Any, send: Any) -> None:
        await applications[scope["path"]](scope, receive, send)

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1
    config.errorlog = logging.getLogger("hypercorn.test")
    stop = trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        await serve(
            ProtocolTypeRouter({"websocket": by_path}), config, shutdown_trigger=stop.wait, task_status=task_status
        )

    async with trio.open_nursery() as nursery:
        binds = await nursery.start(run)
        yield binds[0].replace("http://", "ws://")
        stop.set()


class Counting:
    """How many applications have begun and ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)


def senders(counting: Counting, layer: InMemoryChannelLayer) -> dict[str, Any]:
    """Applications that send without end, each in its way."""

    class Looping(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = ("everybody",)
        limits = LIMITS

        async def connect(self) -> None:
            await self.accept()
            counting.begun += 1
            while True:
                await self.send("again")

        async def disconnect(self, code: int) -> None:
            counting.ended += 1

    class LoopingBeside(Looping):
        async def connect(self) -> None:
            await self.accept()
            counting.begun += 1
            self.start_soon(self.loop)

        async def loop(self) -> None:
            while True:
                await self.send(bytes_data=b"again")

    class Stubborn(Looping):
        """Catches whatever comes, as code with ``except Exception`` in a loop does."""

        async def connect(self) -> None:
            await self.accept()
            counting.begun += 1
            while True:
                try:
                    await self.send("again")
                except Exception:
                    continue

    class Sync(WebsocketConsumer):
        channel_layer = layer
        groups = ("everybody",)
        limits = LIMITS

        def connect(self) -> None:
            self.accept()
            counting.begun += 1
            while True:
                self.send("again")

        def disconnect(self, code: int) -> None:
            counting.ended += 1

    @websocket(limits=LIMITS)
    async def endpoint(ws: WebSocket) -> None:
        try:
            async with layer.subscribe("everybody"):
                await ws.accept()
                counting.begun += 1
                while True:
                    await ws.send("again")
        finally:
            counting.ended += 1

    return {
        "/looping/": Looping.as_asgi(),
        "/beside/": LoopingBeside.as_asgi(),
        "/stubborn/": Stubborn.as_asgi(),
        "/sync/": Sync.as_asgi(),
        "/endpoint/": endpoint,
    }


async def vanish(url: str, *, politely: bool) -> None:
    """A client that takes a few messages and goes, with a close frame or by closing its socket."""
    async with open_websocket_url(url) as ws:
        for _ in range(3):
            await ws.get_message()
        if not politely:
            await ws._stream.aclose()


@pytest.mark.parametrize("politely", [True, False], ids=["close frame", "socket closed"])
@pytest.mark.parametrize("path", ["/looping/", "/beside/", "/stubborn/", "/sync/", "/endpoint/"])
async def test_senders_whose_clients_have_vanished_do_not_stop_an_echo(path: str, politely: bool) -> None:
    counting, layer = Counting(), InMemoryChannelLayer()
    # A thread that is in its handler is held: there are ten.
    count = 8 if path == "/sync/" else SENDERS
    async with hypercorn({"/echo/": Echo.as_asgi()} | senders(counting, layer)) as base:
        async with open_websocket_url(f"{base}/echo/") as echo, trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(lambda: vanish(base + path, politely=politely))
            number = 0
            while number < ECHOES or counting.ended < count or layer.statistics().channels:
                await echo.send_message(str(number))
                assert await echo.get_message() == str(number)
                number += 1
        assert counting.begun == counting.ended == count
    seen = layer.statistics()
    assert (seen.channels, seen.groups, seen.memberships) == (0, 0, 0)


async def test_handler_that_never_returns_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cleaned, ended = trio.Event(), trio.Event()

    class Waiting(AsyncWebsocketConsumer):
        limits = LIMITS

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send("begun")
            try:
                await trio.sleep_forever()
            finally:
                cleaned.set()

        async def disconnect(self, code: int) -> None:
            assert cleaned.is_set()
            ended.set()

    async with hypercorn({"/": Waiting.as_asgi()}) as base:
        async with open_websocket_url(f"{base}/") as ws:
            await ws.send_message("begin")
            assert await ws.get_message() == "begun"
        await ended.wait()
    assert "the handler of 'websocket.receive' on websocket / from 127.0.0.1" in caplog.text
    assert "was cancelled: it went on for more than 0.2 seconds after the connection had ended" in caplog.text

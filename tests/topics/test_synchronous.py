"""Synchronous code sends to topics: a plain view of the served site, and a management command in another process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._http.handler import DjangoHandler
from trio_channels.client import connect
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.sync import async_to_sync
from trio_channels.topics import Topic, TopicSocket, broadcast

from ..layers.conftest import redis_server
from ..layers.redis.conftest import url
from ..server.clients import OURS, serving

__all__ = ["redis_server", "url"]  # fixtures

ROOT = Path(__file__).parents[2]
A = "room:a"
COMMAND = """
import sys, django
sys.path.append("docs/snippets")
django.setup()
from django.core.management import call_command
from topics_outside import Command
call_command(Command(), "a", "of a command")
"""


class Room(Topic):
    pattern = "room:<slug:name>"


def application(layer: Any) -> Any:
    cls: Any = type("Socket", (TopicSocket,), {"channel_layer": layer})
    return ProtocolTypeRouter({"http": DjangoHandler(), "websocket": cls.as_asgi(topics=[Room])})


def say(request: HttpRequest) -> HttpResponse:
    async_to_sync(broadcast)(A, "said", {"text": request.GET["text"]})
    return HttpResponse(status=204)


async def test_plain_view_sends_to_a_topic() -> None:
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    try:
        with override_settings(ROOT_URLCONF=(path("say", say),)):
            async with (
                serving(OURS, application(layer)) as server,
                connect(f"ws://127.0.0.1:{server.port}/") as socket,
                socket.join(A) as room,
            ):
                assert (await server.request("GET", "/say?text=hello")).status == 204
                message = await anext(room)
                assert (message.event, message.payload) == ("said", {"text": "hello"})
    finally:
        channel_layers.set("default", before)


@pytest.mark.slow
async def test_management_command_sends_to_a_topic(url: str) -> None:
    prefix = f"synchronous-{os.getpid()}"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.integration.outside.settings",
        "PYTHONPATH": str(ROOT),
        "TEST_REDIS": url,
        "TEST_PREFIX": prefix,
    }
    async with (
        RedisStreamsChannelLayer(hosts=[url], prefix=prefix) as layer,
        serving(OURS, application(layer)) as server,
        connect(f"ws://127.0.0.1:{server.port}/") as socket,
        socket.join(A) as room,
    ):
        done = await trio.run_process(
            [sys.executable, "-W", "error", "-c", COMMAND], cwd=ROOT, env=environment, capture_stderr=True
        )
        assert done.stderr == b""
        message = await anext(room)
        assert (message.event, message.payload) == ("message.new", {"text": "of a command"})

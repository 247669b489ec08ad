"""The ends of event streams from outside: the server's, and those that somebody orders."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
from django.test import AsyncClient, SimpleTestCase, override_settings

from trio_channels.closing import close_group, close_user
from trio_channels.event_stream import EventStream
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import statistics
from trio_channels.testing.events import EventParser

from ..integration.server.conftest import next_event
from ..server.clients import OURS, serving
from .common import BOTH, as_asgi, as_view, kept, visit

HISTORY = {"history": {"news": {"messages": 10, "seconds": 60}}}
LAYERS = {"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer", "CONFIG": HISTORY}}


class Reader:
    """A client that reads a stream over a real socket."""

    def __init__(self, stream: trio.SocketStream, parser: h11.Connection) -> None:
        self._stream = stream
        self._parser = parser
        self._events = EventParser()
        self.text = ""

    async def until(self, text: str) -> None:
        while text not in self.text:
            event = await next_event(self._stream, self._parser)
            assert not isinstance(event, h11.EndOfMessage), self.text
            if isinstance(event, h11.Data):
                self.text += bytes(event.data).decode()

    async def rest(self) -> str:
        text = ""
        while not isinstance(event := await next_event(self._stream, self._parser), h11.EndOfMessage):
            text += bytes(event.data).decode()
        return text


@pytest.mark.parametrize("serve", BOTH)
async def test_stream_ends_when_the_server_does(serve: Any) -> None:
    layer = kept()
    with serve(channel_layer=layer, groups=["news"], heartbeat=1000.0) as application:
        async with serving(OURS, ProtocolTypeRouter({"http": application})) as server:
            stream, parser = await server.send_request("GET", "/events/")
            async with stream:
                client = Reader(stream, parser)
                await client.until("stream.open")
                await layer.group_send("news", {"type": "n"})
                await client.until("event: n")
                server.stop.set()
                assert (await client.rest()).startswith("retry: ")
            await server.died.wait()


async def test_stream_that_begins_while_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, gate, begun = kept(), trio.Event(), trio.Event()

    class Late(EventStream):
        async def authorize(self, request: Any, name: str) -> bool:
            begun.set()
            await gate.wait()
            return True

    application = Late.as_asgi(channel_layer=layer, groups=["news"], heartbeat=1000.0)
    async with serving(OURS, ProtocolTypeRouter({"http": application})) as server:
        stream, parser = await server.send_request("GET", "/")
        async with stream:
            await begun.wait()
            server.stop.set()
            while not statistics().ending:
                await trio.lowlevel.checkpoint()
            gate.set()
            client = Reader(stream, parser)
            await client.until("stream.open")
            assert (await client.rest()).count("retry: ") == 1


@pytest.mark.parametrize("serve", BOTH)
async def test_closed_group_ends_its_streams(serve: Any, settings: Any) -> None:
    settings.CHANNEL_LAYERS = LAYERS
    with serve(groups=["news"], heartbeat=1000.0) as application:
        async with visit(application) as client:
            await client.receive_event()
            await trio.testing.wait_all_tasks_blocked()
            await close_group("news")
            await client.wait(30)


async def test_closed_user_loses_the_stream(settings: Any) -> None:
    class User:
        pk = 7
        is_authenticated = True

    settings.CHANNEL_LAYERS = LAYERS
    with as_asgi(groups=["news"], heartbeat=1000.0) as application:
        client = visit(application)
        client.scope["user"] = User()
        async with client:
            await client.receive_event()
            await trio.testing.wait_all_tasks_blocked()
            await close_user(7)
            await client.wait(30)


@override_settings(CHANNEL_LAYERS=LAYERS)
class WithDjangosClient(SimpleTestCase):
    """Streams under Django's own test client."""

    async def test_stream(self) -> None:
        with as_view(groups=["news"]):
            response = await AsyncClient().get("/events/")
            assert response.status_code == 200
            assert response["Content-Type"] == "text/event-stream"
            parts = aiter(response.streaming_content)
            assert (await anext(parts)).startswith(b"retry: ")
            assert b"event: stream.open" in await anext(parts)
            await parts.aclose()
            response.close()

    async def test_refusal(self) -> None:
        with as_view(signed=True):
            assert (await AsyncClient().get("/events/")).status_code == 403

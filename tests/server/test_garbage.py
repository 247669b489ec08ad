"""An HTTP/1.1 connection that has ended leaves no cycles of references: its memory is free without a collection."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._http.handler import DjangoHandler
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.server import statistics
from trio_channels.websocket import WebSocket, websocket

from .clients import Server, frame, open_h1, read_until, serving_ours


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"hello")


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"hello")


urlpatterns = [path("sync/", view), path("async/", async_view)]


class Async(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)


class Sync(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data)


@websocket
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    async for message in ws:
        await ws.send(message)


APPLICATION = ProtocolTypeRouter(
    {
        "http": DjangoHandler(),
        "websocket": URLRouter(
            [path("async/", Async.as_asgi()), path("sync/", Sync.as_asgi()), path("endpoint/", echo)]
        ),
    }
)
PLACES = (b"/async/", b"/sync/", b"/endpoint/")


async def request(server: Server, place: bytes) -> None:
    async with await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % place)
            await read_until(stream, b"hello")


async def talk(server: Server, place: bytes) -> None:
    client = await open_h1(server, place)
    await client.send(frame(1, b"hello"))
    assert b"hello" in await client.receive()
    await client.aclose()


async def talk_and_close(server: Server, place: bytes) -> None:
    client = await open_h1(server, place)
    await client.send(frame(8, b"\x03\xe8"))
    await client.rest()
    await client.aclose()


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


#: wsproto's parser, made for a frame that is not the common one, has a cycle of its own; this is in it.
IN_WSPROTO = "MessageLimit"


def ours() -> Counter[str]:
    """The objects of the package and of its server that exist, by type."""
    return Counter(
        type(it).__qualname__
        for it in gc.get_objects()
        if str(type(it).__module__).startswith(("trio_channels.", "hypercorn"))
    )


@pytest.mark.parametrize(
    ("visit", "place"),
    [
        *((request, place) for place in PLACES[:2]),
        *((talk, place) for place in PLACES),
        *((talk_and_close, place) for place in PLACES),
    ],
)
async def test_ended_connection_is_free_at_once(
    visit: Callable[[Server, bytes], Awaitable[Any]], place: bytes, no_collections: None
) -> None:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        async with serving_ours(APPLICATION) as server:

            async def visit_and_leave() -> None:
                await visit(server, place)
                with trio.fail_after(30):
                    while statistics().connections:
                        await trio.testing.wait_all_tasks_blocked()

            await visit_and_leave()
            before = ours()
            for _ in range(3):
                await visit_and_leave()
            more = {name for name, count in (ours() - before).items() if count >= 3}
            assert more <= {IN_WSPROTO}

"""The application of the runner's tests: handlers and views that take time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import trio
from django.db import connection
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from trio_channels.asgi import get_asgi_application
from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.proxy_headers import ProxyHeadersMiddleware
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.sync import sync_to_async


def say(text: str) -> None:
    os.write(sys.stderr.fileno(), f"{text}\n".encode())


class Echo(AsyncWebsocketConsumer):
    """Sends each message back, with the id of its process."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"{os.getpid()} {text_data}")

    async def disconnect(self, code: int) -> None:
        say(f"disconnected {code}")


class Slow(AsyncWebsocketConsumer):
    """Blocks a thread for the seconds in the message, and reports the end."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert text_data is not None
        await self.send(text_data="begins")
        await sync_to_async(take_time)(float(text_data))
        say("call finished")

    async def disconnect(self, code: int) -> None:
        say(f"disconnected {code}")


def take_time(seconds: float) -> None:
    time.sleep(seconds)


class Frozen(AsyncWebsocketConsumer):
    """Blocks the event loop."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        say("freezes")
        take_time(3600)


class Deaf(AsyncWebsocketConsumer):
    """Sends to a client that does not read."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        say("sends without end")
        while True:
            await self.send(bytes_data=bytes(100_000))

    async def disconnect(self, code: int) -> None:
        say(f"disconnected {code}")


class Writing(AsyncWebsocketConsumer):
    """Runs a slow query, and then writes a row."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert text_data is not None
        await self.send(text_data="begins")
        await database_sync_to_async(write_slowly)(text_data)

    async def disconnect(self, code: int) -> None:
        say(f"disconnected {code}")


def write_slowly(name: str) -> None:
    from django.contrib.contenttypes.models import ContentType  # not before Django is set up

    connection.ensure_connection()
    connection.connection.create_function("pause", 1, time.sleep)
    ContentType.objects.annotate(paused=RawSQL("pause(%s)", [0.5])).first()
    ContentType.objects.create(app_label="drain", model=name)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{os.getpid()}")


def slow(request: HttpRequest) -> HttpResponse:
    say("request begins")
    time.sleep(0.5)
    return HttpResponse("finished")


def about(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.META.get('REMOTE_ADDR')} {request.scheme} {request.get_host()}")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    size = 0
    while part := request.read(65_536):
        size += len(part)
    return HttpResponse(f"{size}")


urlpatterns = [path("upload/", upload), path("hello/", hello), path("slow/", slow), path("about/", about)]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("echo/", Echo.as_asgi()),
                path("slow/", Slow.as_asgi()),
                path("frozen/", Frozen.as_asgi()),
                path("deaf/", Deaf.as_asgi()),
                path("writing/", Writing.as_asgi()),
            ]
        ),
    }
)


behind_proxy = ProxyHeadersMiddleware(application, trusted=["unix"])


async def fails(scope: Any, receive: Any, send: Any) -> None:
    """An application whose start-up fails."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})


async def fails_later(scope: Any, receive: Any, send: Any) -> None:
    """An application whose start-up fails if the file $TESTS_BROKEN exists."""
    broken = scope["type"] == "lifespan" and await trio.Path(os.environ["TESTS_BROKEN"]).exists()
    await (fails if broken else application)(scope, receive, send)


async def fails_to_end(scope: Any, receive: Any, send: Any) -> None:
    """An application whose shutdown fails."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})


async def raises_at_its_end(scope: Any, receive: Any, send: Any) -> None:
    """An application that raises while it shuts down."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ValueError("the queue is not empty")


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    """An application whose start-up never ends."""
    say("starting up")
    await trio.sleep_forever()


async def crashing_life() -> AsyncIterator[dict[str, int]]:
    """A task of it crashes on SIGUSR1."""

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            await anext(signals)
        raise ValueError("the feed has ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield {"answer": 42}
        nursery.cancel_scope.cancel()


crashing = ProtocolTypeRouter({"lifespan": crashing_life, "websocket": Echo.as_asgi()})
not_callable = 3

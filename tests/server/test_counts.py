"""The work of one request and of one WebSocket, counted: a regression is seen on any machine.

Counted are calls of Python functions of this package, resumed coroutines among them, those of h11, steps of tasks, and
reads and writes of the socket. The bounds are the figures of Python 3.11, rounded up. Later versions make fewer calls,
because they inline comprehensions. Django 6.1 calls the middleware and the handler in more steps.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import django
import h11
import pytest
import trio
import trio.testing
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

import trio_channels
from trio_channels._concurrency import YIELD_EVERY
from trio_channels._http.handler import DjangoHandler
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.server import transport

from .clients import HANDSHAKE, read_until, serving_ours

PACKAGE = str(Path(trio_channels.__file__).parent)
H11 = str(Path(h11.__file__).parent)
TESTING = str(Path(PACKAGE, "testing"))  # the plugin runs this test

#: In so many writes one lets other tasks run: a step more, and some calls.
TIMES = YIELD_EVERY


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"hello")


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"hello")


urlpatterns = [path("sync/", view), path("async/", async_view)]


class Room(AsyncWebsocketConsumer):
    groups = ["room"]


class Counts(trio.abc.Instrument):
    """Counts in :meth:`counting`, without the steps of the task that is there: the client's."""

    def __init__(self) -> None:
        self._on = False
        self.seen: Counter[str] = Counter()

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if self._on and event == "call":
            place = frame.f_code.co_filename
            self.seen["calls"] += place.startswith(PACKAGE) and not place.startswith(TESTING)
            self.seen["h11"] += place.startswith(H11)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._on and task is not self._client:
            self.seen["steps"] += 1

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.seen[name] += self._on
            return function(*args)

        return call

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._client = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self.profile)
        self._on = True
        try:
            yield
        finally:
            self._on = False
            sys.setprofile(None)
            trio.lowlevel.remove_instrument(self)

    def each(self, name: str) -> float:
        return self.seen[name] / TIMES


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    counts = Counts()
    connection.close()  # a test before may have left it open on this thread
    for name in ("read_socket", "write_socket"):
        monkeypatch.setattr(transport, name, counts.counted(name, getattr(transport, name)))
    threading.setprofile(counts.profile)  # of the threads that the pool is going to start
    yield counts
    threading.setprofile(None)


async def get(stream: trio.SocketStream, target: bytes) -> None:
    await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    await read_until(stream, b"hello")
    await trio.testing.wait_all_tasks_blocked()


COMMON = ["django.middleware.common.CommonMiddleware"]
#: With this one an async view needs two calls to a thread, and none without it.
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"


@pytest.mark.parametrize(
    ("target", "middleware", "calls", "steps"),
    [(b"/sync/", COMMON, 120, 3), (b"/async/", COMMON, 118, 2), (b"/async/", [CONDITIONAL, *COMMON], 180, 4)],
    ids=["sync", "async", "async and threads"],
)
async def test_kept_alive_request(target: bytes, middleware: list[str], calls: int, steps: int, counts: Counts) -> None:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        async with serving_ours(DjangoHandler()) as server, await server.connect() as stream:
            for _ in range(3):
                await get(stream, target)
            with counts.counting():
                for _ in range(TIMES):
                    await get(stream, target)
    assert counts.each("calls") <= calls + (5 if django.VERSION >= (6,) else 0)
    assert counts.each("h11") <= 6
    assert counts.each("steps") <= steps + 1 / TIMES
    assert counts.each("read_socket") == counts.each("write_socket") == 1


async def open_and_close(connect: Callable[[], Any]) -> None:
    async with await connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/ws/", b"Origin: http://localhost\r\n"))
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(bytes((0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8)))
        while await stream.receive_some():
            pass
    await trio.testing.wait_all_tasks_blocked()


async def test_websocket_from_connect_to_close(counts: Counts) -> None:
    router = URLRouter([path("ws/", Room.as_asgi())])
    async with serving_ours(ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(router)})) as server:
        await open_and_close(server.connect)
        with counts.counting():
            for _ in range(TIMES):
                await open_and_close(server.connect)
    # A frame that has come already saves a wait, and one that has not a read.
    assert counts.each("calls") <= 320
    assert counts.each("steps") <= 14
    assert counts.each("read_socket") <= 4
    assert counts.each("write_socket") == 2

"""EventSource and HTMX in Chromium: pages that come back by themselves after the server has ended, and miss nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.topics import broadcast

from ..event_stream import site
from ..npm import installed
from ..ports import free_port
from ..redis_server import RedisServer, needs_redis
from .conftest import CHROMIUM, PATIENCE, ROOT
from .test_chat import sync_api

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    needs_redis,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

SERVE = ("-m", "trio_channels", "serve", "tests.event_stream.pages:application")


class Site:
    """The site of the tests of event streams, with a Redis of its own."""

    def __init__(self, redis: RedisServer, scripts: Path) -> None:
        self.port = free_port()
        self._redis = redis
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.event_stream.site",
            "PYTHONPATH": str(ROOT),
            "TESTS_REDIS": redis.url,
            "TESTS_SCRIPTS": str(scripts),
        }
        self._process: subprocess.Popen[str] | None = None
        self._sent = self._batches = 0
        self.output = ""

    def start(self) -> None:
        """Start, and return when it listens."""
        self._process = process = subprocess.Popen(
            [sys.executable, *SERVE, f"--bind=127.0.0.1:{self.port}"],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        watchdog = threading.Timer(PATIENCE, self.end, [signal.SIGKILL])
        watchdog.start()
        try:
            while "Running on" not in (line := process.stdout.readline()):
                self.output += line
                assert line, f"the server ended: {self.output}"
        finally:
            watchdog.cancel()
            watchdog.join()

    def end(self, way: signal.Signals) -> None:
        """End the server, and wait until it has ended."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, way) if way == signal.SIGKILL else process.send_signal(way)
            self.output += process.communicate(timeout=PATIENCE)[0]

    def send(self, event: str, count: int) -> list[str]:
        """Broadcast `count` numbers to one room, the next time to the other; returns all texts so far."""
        self._batches += 1
        room = f"room:{1 + (self._batches - 1) % 2}"
        config = site.CHANNEL_LAYERS["default"]["CONFIG"] | {"hosts": [self._redis.url]}

        async def run() -> None:
            async with RedisStreamsChannelLayer(**config) as layer:
                for _ in range(count):
                    payload = {"text": f"<{self._sent}>"}
                    await broadcast(room, event, payload, layer=layer)
                    self._sent += 1

        trio.run(run)
        return [f"<{number}>" for number in range(self._sent)]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Starts a site, whose output must not hold a traceback."""
    redis = RedisServer()
    redis.start()
    sites: list[Site] = []

    def run(*packages: str) -> Site:
        sites.append(Site(redis, installed(request.config, *packages) if packages else Path()))
        sites[-1].start()
        return sites[-1]

    yield run
    for each in sites:
        each.end(signal.SIGKILL)
        assert "Traceback" not in each.output, each.output
    redis.close()


def texts(page: Page, expected: list[str]) -> None:
    """Wait until the page shows these messages, and no others."""
    from playwright.sync_api import expect

    expect(page.locator("#messages li")).to_have_text(expected)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    mishaps: list[Any] = []
    context = browser.new_context()
    context.on("weberror", lambda error: mishaps.append(error.error))
    yield context.new_page()
    context.close()
    assert mishaps == []


@pytest.mark.parametrize(
    ("name", "event", "packages"),
    [
        ("plain", "message.new", ()),
        ("htmx", "message.html", ("htmx.org@2.0.4", "htmx-ext-sse@2.2.2")),
    ],
    ids=["EventSource", "HTMX"],
)
def test_page_comes_back_and_misses_nothing(
    start: Callable[..., Site], page: Page, name: str, event: str, packages: tuple[str, ...]
) -> None:
    server = start(*packages)
    address = f"http://127.0.0.1:{server.port}/page/{name}/"

    held: list[Any] = []  # the stream's request, held so that messages come between page and stream
    page.route(re.compile("/events/"), lambda route: held.append(route), times=1)
    page.goto(address)
    while not held:
        page.wait_for_timeout(10)
    server.send(event, 2)
    held[0].continue_()
    texts(page, server.send(event, 3))
    for way in (signal.SIGKILL, signal.SIGTERM):
        server.end(way)
        missed = server.send(event, 5)
        server.start()
        texts(page, missed)
        texts(page, server.send(event, 2))
    if name == "plain":
        assert page.evaluate("[opened, gaps]") == [[True, True, True], []]

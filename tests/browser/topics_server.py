"""A server in a process of its own, whose page uses ``topics.js``; its history is in Redis, so that it may be killed.

``topics_server.py <port>`` serves, and ``topics_server.py publish`` broadcasts numbers until its stdin ends.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import trio
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from hypercorn.config import Config

from trio_channels.asgi import get_asgi_application
from trio_channels.layers import get_channel_layer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.server import serve
from trio_channels.staticfiles import StaticFilesHandler
from trio_channels.topics import JoinRefused, LongPolling, Topic, TopicSocket, broadcast, event

REDIS, PREFIX, DATABASE = (os.environ.get(f"TOPICS_{name}", "") for name in ("REDIS", "PREFIX", "DATABASE"))
HISTORY = {"topic.news.*": {"messages": 100_000, "seconds": 3600}}
TOPIC = "news:all"


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse('<!doctype html><title>Topics</title><link rel="icon" href="data:,">')


urlpatterns = [path("", page)]


class News(Topic):
    """The topic of the numbers. It keeps pushes: each handling in ``calls``, each push once in ``notes``."""

    pattern = "news:<slug:name>"

    @event("note")
    def note(self, payload: dict[str, Any]) -> int:
        with sqlite3.connect(DATABASE, timeout=60) as database:
            database.execute("INSERT INTO calls (text) VALUES (?)", [payload["text"]])
            known = payload.get("push_id")
            database.execute("INSERT OR IGNORE INTO notes (id, text) VALUES (?, ?)", [known, payload["text"]])
        return len(payload["text"])


class Room(Topic):
    pattern = "room:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> dict[str, str]:
        if self.kwargs["name"] == "closed":
            raise JoinRefused({"reason": "this room is closed"})
        await self.track(params["name"], {"at": "home"})
        return {"title": self.kwargs["name"].title()}

    @event("wait")
    async def wait(self, payload: Any) -> None:
        await trio.sleep_forever()

    @event("close")
    async def close(self, payload: int) -> None:
        await self.socket.close(payload, "as you wish")

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload


def prepare(database: str) -> None:
    """Make the tables, with writes that do not wait for the disk. A killed process loses none of them."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE calls (number INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("CREATE TABLE notes (number INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT)")


def rows(database: str | Path, table: str) -> list[str]:
    with sqlite3.connect(database) as connection:
        return [text for (text,) in connection.execute(f"SELECT text FROM {table} ORDER BY number")]


async def run(port: str) -> None:
    websocket = URLRouter([path("socket/websocket", TopicSocket.as_asgi(topics=[News, Room]))])
    pages = StaticFilesHandler(get_asgi_application())
    application = ProtocolTypeRouter(
        {
            "http": URLRouter([path("socket/longpoll", LongPolling(websocket)), re_path("", pages)]),
            "websocket": websocket,
        }
    )
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "WARNING"
    with trio.open_signal_receiver(signal.SIGINT) as signals:

        async def interrupted() -> None:
            await anext(signals)

        serving = partial(serve, application, config, shutdown_trigger=interrupted)
        async with trio.open_nursery() as nursery:
            (bind,) = await nursery.start(serving)
            print(f"Running on {bind}", flush=True)


async def publish() -> None:
    """Broadcast numbers, about a hundred in a second, until stdin ends; then print how many there were."""
    ended = trio.Event()

    async def wait_for_end() -> None:
        await trio.to_thread.run_sync(sys.stdin.read)
        ended.set()

    layer: Any = get_channel_layer()
    async with layer, trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_end)
        for number in count():
            if ended.is_set():
                break
            await broadcast(TOPIC, "number", {"n": number}, layer=layer)
            await trio.sleep(0.01)
    print(number, flush=True)


if __name__ == "__main__":
    settings.configure(
        SECRET_KEY="of no worth",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["trio_channels", "django.contrib.staticfiles"],
        ROOT_URLCONF=__name__,
        STATIC_URL="static/",
        DEBUG=True,
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
                "CONFIG": {"hosts": [REDIS], "prefix": PREFIX, "history": HISTORY},
            }
        },
    )
    get_asgi_application()
    trio.run(*([publish] if sys.argv[1] == "publish" else [run, sys.argv[1]]))

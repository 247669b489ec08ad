"""A Django project for worker processes: settings and application in one; the environment says where Redis is.

The handlers write their diary, a line for each step, to the file that ``WORKER_TEST_DIARY`` names.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import trio

SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["trio_channels"]
ASGI_APPLICATION = "tests.integration.workers.project.application"
TRIO_CHANNELS = {"SHUTDOWN_GRACE": float(os.environ.get("WORKER_TEST_GRACE", "30"))}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
        "CONFIG": {
            "hosts": [os.environ.get("WORKER_TEST_REDIS", "redis://127.0.0.1:1")],
            "prefix": os.environ.get("WORKER_TEST_PREFIX", "workers"),
            "capacity": 1000,
        },
    },
    "local": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"},
}


def note(word: str, number: int) -> None:
    """One line of the diary; a write of a few bytes at a file's end is atomic."""
    line = f"{word} {number} {os.getpid()}\n".encode()
    diary = os.open(os.environ["WORKER_TEST_DIARY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(diary, line)
    finally:
        os.close(diary)


class _Jobs:
    """Made when it is asked for: a consumer cannot be imported before there are settings."""

    def __new__(cls) -> Any:
        from trio_channels.consumer import AsyncConsumer

        class Jobs(AsyncConsumer):
            async def job_quick(self, message: dict[str, Any]) -> None:
                note("begin", message["n"])
                await trio.sleep(0.005)
                note("end", message["n"])

            async def job_until(self, message: dict[str, Any]) -> None:
                """Goes on until a file is there."""
                note("begin", message["n"])
                while not await trio.Path(message["path"]).exists():  # noqa: ASYNC110 - another process makes it
                    await trio.sleep(0.01)
                note("end", message["n"])

            async def job_hang(self, message: dict[str, Any]) -> None:
                note("begin", message["n"])
                await trio.sleep_forever()

            async def job_thread(self, message: dict[str, Any]) -> None:
                """A thread that nobody can end."""
                note("begin", message["n"])
                await trio.to_thread.run_sync(threading.Event().wait)

            async def job_kill(self, message: dict[str, Any]) -> None:
                """Takes the process down with it."""
                note("begin", message["n"])
                os.kill(os.getpid(), 9)

            async def job_fail(self, message: dict[str, Any]) -> None:
                note("begin", message["n"])
                raise ValueError("boom")

        return Jobs.as_asgi()


def __getattr__(name: str) -> Any:
    if name == "application":
        from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter

        jobs = _Jobs()
        return ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": jobs, "others": jobs})})
    raise AttributeError(name)

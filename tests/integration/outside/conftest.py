"""Processes that share a Redis: one that receives, and others that send."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from trio_channels.layers import channel_layers
from trio_channels.sync import async_to_sync

from ...layers.conftest import redis_server
from ...redis_server import RedisServer

__all__ = ["redis_server"]

ROOT = Path(__file__).parents[3]
#: Seconds; only a test that fails waits as long.
PATIENCE = 60

_numbers = itertools.count()


class Room:
    """The group ``room`` on a Redis, and the processes that use it.

    Attributes:
        environment: the environment variables of these processes.
        layers: a value of ``CHANNEL_LAYERS`` for the same Redis and prefix.
    """

    def __init__(self, url: str) -> None:
        self.prefix = f"outside-{os.getpid()}-{next(_numbers)}"
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.integration.outside.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "TEST_REDIS": url,
            "TEST_PREFIX": self.prefix,
        }
        self.layers: dict[str, Any] = {
            "default": {
                "BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer",
                "CONFIG": {"hosts": [url], "prefix": self.prefix, "timeout": 20},
            }
        }
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a Python process that takes every warning for an error."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            **{"stderr": subprocess.PIPE, **options},
        )
        self._processes.append(process)
        return process

    def run(self, script: str) -> str:
        """Run a script to its end; returns its output. It must exit with 0 and print no error."""
        process = self.start("-c", script)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, "")
        return output

    def listen(self) -> Receiver:
        """Start a process that receives; it is a member of the room when this returns."""
        return Receiver(self.start("-m", "tests.integration.outside.receiver"))

    def close(self) -> None:
        """Leave no process behind."""
        for process in self._processes:
            process.kill()
            process.communicate()


class Receiver:
    """The process that receives."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "ready\n", process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()

    def messages(self) -> list[dict[str, Any]]:
        """Wait for the message of the type ``last``; returns the messages before it."""
        output, errors = self._process.communicate(timeout=PATIENCE)
        assert (self._process.returncode, errors) == (0, "")
        *messages, last = map(json.loads, output.splitlines())
        assert last["type"] == "last"
        return messages


@pytest.fixture
def room(redis_server: RedisServer) -> Iterator[Room]:
    """A room on the session's Redis; the channel layer of this process uses it, too."""
    room = Room(redis_server.url)
    with override_settings(CHANNEL_LAYERS=room.layers):
        yield room
        # A layer left open would outlive Redis in this process's background run, and log errors in later tests.
        for layer in channel_layers.backends.values():
            async_to_sync(layer.close)()
    room.close()

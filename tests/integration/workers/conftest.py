"""Worker processes, and their diary."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer

from ...layers.conftest import redis_server  # noqa: F401 - a fixture
from ...redis_server import RedisServer

ROOT = Path(__file__).parents[3]
#: Seconds in which a condition must be met; only a failing test waits as long.
PATIENCE = 60.0

_prefixes = itertools.count()


class Workers:
    """A project in a Redis, its ``runworker`` processes, and their diary."""

    def __init__(self, folder: Path, url: str) -> None:
        self.diary = folder / "diary"
        self.prefix = f"workers-{os.getpid()}-{next(_prefixes)}"
        self.url = url
        self.processes: list[subprocess.Popen[str]] = []
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.integration.workers.project",
            "WORKER_TEST_REDIS": url,
            "WORKER_TEST_PREFIX": self.prefix,
            "WORKER_TEST_DIARY": str(self.diary),
        }

    def layer(self) -> RedisStreamsChannelLayer:
        """The project's channel layer, for this process."""
        return RedisStreamsChannelLayer(hosts=[self.url], prefix=self.prefix, capacity=1000)

    def manage(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a management command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """Start a worker on the channel ``jobs``."""
        return self.manage("runworker", "jobs", *options, **environment)

    def lines(self) -> list[list[str]]:
        """The diary: (word, number, process id)."""
        return [line.split() for line in self.diary.read_text().splitlines()] if self.diary.exists() else []

    def numbers(self, word: str) -> list[int]:
        """The numbers of the messages that were begun, or ended, in that order."""
        return [int(line[1]) for line in self.lines() if line[0] == word]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for a condition; it may be asynchronous."""
        with trio.move_on_after(PATIENCE):
            while True:
                met = condition()
                if hasattr(met, "__await__"):
                    met = await met
                if met:
                    return
                await trio.sleep(0.02)
        outputs = [self.end(process, signal.SIGKILL)[1] for process in self.processes]
        raise AssertionError("\n".join(["it has not come to that; the workers say:", *outputs]))

    def end(self, process: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str]:
        """Send signals, and wait for the end; returns exit code and output."""
        for number in signals:
            process.send_signal(number)
        output = process.communicate(timeout=PATIENCE)[0]
        self.processes.remove(process)
        return process.returncode, output

    def close(self) -> None:
        """Leave no process behind."""
        for process in list(self.processes):
            self.end(process, signal.SIGKILL)


@pytest.fixture
def workers(tmp_path: Path, redis_server: RedisServer) -> Iterator[Workers]:  # noqa: F811
    """No worker yet."""
    workers = Workers(tmp_path, redis_server.url)
    yield workers
    workers.close()

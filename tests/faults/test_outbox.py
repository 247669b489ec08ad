"""The outbox, while its writers, its relays, Redis or the database are killed with SIGKILL at random points.

At the end: every committed message has arrived, none that was rolled back has, each once, in order.

``OUTBOX_KILLS=50 pytest -m faults -o trio_channels_time_limit=900 tests/faults/test_outbox.py`` kills more often.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User

from trio_channels import outbox
from trio_channels.db import database_sync_to_async
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..postgres import PostgresServer
from ..process import ROOT
from ..redis_server import KEEPS_ALL, RedisServer, needs_redis

pytestmark = [pytest.mark.faults, needs_redis]

KILLS = int(os.environ.get("OUTBOX_KILLS", "6"))
GROUPS = [f"g{n}" for n in range(6)]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(*KEEPS_ALL)
    server.start()
    yield server
    server.close()


class Process:
    """A process that is started again when it was killed."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._environment = environment
        self._arguments = arguments
        self._starts = 0
        self._process: trio.Process | None = None

    async def start(self) -> None:
        self._starts += 1
        arguments = [argument.format(start=self._starts) for argument in self._arguments]
        self._process = await trio.lowlevel.open_process(
            [sys.executable, *arguments], cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL
        )

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def kill_and_start(self) -> None:
        await self.kill()
        await self.start()


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                await process.kill()


class Site:
    """Two writers and two relays, as processes, and a subscriber here."""

    def __init__(self, database: dict[str, Any], redis: RedisServer) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.faults.outbox_settings",
            "OUTBOX_DATABASE": json.dumps({**database, "TIME_ZONE": None}),
            "OUTBOX_REDIS": redis.url,
        }
        writer = ("-m", "tests.faults.outbox_writer")
        self.writers = [Process(environment, *writer, f"{name}-{{start}}", *GROUPS) for name in "ab"]
        self.relays = [Process(environment, "-m", "django", "relay", "-v", "0") for _ in range(2)]
        self.layer = RedisStreamsChannelLayer(hosts=[redis.url], capacity=1_000_000, expiry=3600)
        self.got: list[tuple[str, str, int]] = []
        self.gaps = 0

    async def receive(self, group: str, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.layer.subscribe(group) as events:
            task_status.started()
            async for event in events:
                if isinstance(event, Gap):
                    self.gaps += 1
                else:
                    self.got.append((group, event["publisher"], event["n"]))

    async def arrived(self, number: int) -> None:
        """Wait until `number` messages have arrived in all."""
        while len(self.got) < number:  # noqa: ASYNC110 - they come by another task
            await trio.sleep(0.01)

    async def check(self) -> None:
        """Check that exactly the committed messages arrived: each once, in order."""
        while (await outbox.astatus()).pending:  # noqa: ASYNC110 - other processes delete the rows
            await trio.sleep(0.05)
        committed = {tuple(name.split(":")) async for name in User.objects.values_list("username", flat=True)}
        for group in GROUPS:  # behind everything else
            await self.layer.group_send(group, {"type": "t", "publisher": "last", "n": 0})
        last = {(group, "last", 0) for group in GROUPS}
        while not last <= set(self.got[-10_000:]):  # noqa: ASYNC110
            await trio.sleep(0.01)
        got = [entry for entry in self.got if entry[1] != "last"]
        assert len(got) == len(set(got)), "doubled"
        assert {(group, run, str(n)) for group, run, n in got} == committed
        numbers = defaultdict(list)
        for group, run, n in got:
            numbers[group, run].append(n)
        assert [key for key, seen in numbers.items() if seen != sorted(seen)] == []
        assert self.gaps == 0
        print(f"{len(got)} messages of {len(numbers)} runs in groups")


async def storm(site: Site, kill: Any) -> None:
    """Kill a victim again and again, each time at a random point of the traffic."""
    async with site.layer, trio.open_nursery() as nursery:
        for group in GROUPS:
            await nursery.start(site.receive, group)
        async with running(*site.relays):
            async with running(*site.writers):
                await site.arrived(20)
                for _ in range(KILLS):
                    await trio.sleep(random.uniform(0, 0.3))
                    before = len(site.got)
                    await kill()
                    await site.arrived(before + 10)
            await site.check()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("victim", ["writers", "relays"])
async def test_kills_of_processes_lose_and_double_nothing(
    database: dict[str, Any], redis: RedisServer, victim: str
) -> None:
    site = Site(database, redis)

    async def kill() -> None:
        await random.choice(getattr(site, victim)).kill_and_start()

    await storm(site, kill)


async def test_kills_of_redis_lose_and_double_nothing(postgres_database: dict[str, Any], redis: RedisServer) -> None:
    async def kill() -> None:
        redis.kill()
        await trio.sleep(random.uniform(0, 0.5))
        await database_sync_to_async(redis.start)()

    await storm(Site(postgres_database, redis), kill)


async def test_kills_of_postgresql_lose_and_double_nothing(
    postgres_database: dict[str, Any], postgres: PostgresServer, redis: RedisServer
) -> None:
    async def kill() -> None:
        await database_sync_to_async(postgres.kill)()
        await trio.sleep(random.uniform(0, 0.5))
        await database_sync_to_async(postgres.start)()

    await storm(Site(postgres_database, redis), kill)

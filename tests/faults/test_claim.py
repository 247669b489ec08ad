"""All of it at once: writers commit to PostgreSQL, relays send, two servers deliver to clients whose sockets are cut.

Meanwhile Redis, PostgreSQL, a server, a relay and a writer are killed. At the end every client has every committed
message once and in order, and none that was rolled back.

``CLAIM_ROUNDS=5 pytest -m faults -o trio_channels_time_limit=900 tests/faults/test_claim.py`` kills each five times.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User

from trio_channels import outbox
from trio_channels.db import database_sync_to_async

from ..postgres import PostgresServer
from ..process import ROOT
from ..redis_server import RedisServer, needs_redis
from .resume_server import GROUP, OPTIONS
from .test_outbox import Process, redis, running
from .test_resume import CLIENTS, World, restart, world_of

__all__ = ["redis"]  # a fixture

pytestmark = [pytest.mark.faults, needs_redis, pytest.mark.time_limit(480)]

ROUNDS = int(os.environ.get("CLAIM_ROUNDS", "1"))


class Committed:
    """The messages that transactions have committed, and those that were rolled back, of each writer's run."""

    def __init__(self, names: list[str]) -> None:
        self.numbers = defaultdict[str, set[int]](set)
        for name in names:
            _, run, number = name.split(":")
            self.numbers[run].add(int(number))

    def tell(self, world: World) -> None:
        """Tell the checker of the messages that must have come."""
        for run, numbers in self.numbers.items():
            published = world.checker.streams[run, GROUP]
            published.count = max(numbers) + 1
            published.raised = set(range(published.count)) - numbers

    def rolled_back(self, world: World) -> set[tuple[str, int]]:
        """The messages that came to somebody, and were not committed."""
        return {(run, n) for client in world.clients for run, n in client.seen if n not in self.numbers[run]}


def processes(database: dict[str, Any], redis: RedisServer, prefix: str) -> tuple[list[Process], list[Process]]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.faults.outbox_settings",
        "OUTBOX_DATABASE": json.dumps({**database, "TIME_ZONE": None}),
        "OUTBOX_REDIS": redis.url,
        "OUTBOX_LAYER": json.dumps({"prefix": prefix, **OPTIONS}),
        "OUTBOX_PAUSE": "0.3",
    }
    writer = ("-m", "tests.faults.outbox_writer")
    writers = [Process(environment, *writer, f"{name}-{{start}}", GROUP) for name in "ab"]
    return writers, [Process(environment, "-m", "django", "relay", "-v", "0") for _ in range(2)]


async def test_clients_get_every_committed_message(
    postgres_database: dict[str, Any], postgres: PostgresServer, redis: RedisServer
) -> None:
    async with world_of([redis.url], seed=ROUNDS) as world:
        writers, relays = processes(postgres_database, redis, world.prefix)

        async def restart_postgresql() -> None:
            await database_sync_to_async(postgres.kill)()
            await database_sync_to_async(postgres.start)()

        async def restart_a_server() -> None:
            place = world.random.randrange(2)
            await world.kill_server(place)
            await world.start_server(place)

        victims: list[Callable[[], Awaitable[None]]] = [
            lambda: restart(redis)(world),
            restart_postgresql,
            restart_a_server,
            lambda: world.random.choice(relays).kill_and_start(),
            lambda: world.random.choice(writers).kill_and_start(),
        ]
        async with running(*relays):
            async with running(*writers):
                for victim in world.random.sample(victims * ROUNDS, k=len(victims) * ROUNDS):
                    await arrivals(world, 10)
                    await trio.sleep(world.random.random())
                    await victim()
                await arrivals(world, 50)
            while (await outbox.astatus()).pending:  # noqa: ASYNC110 - other processes delete the rows
                await trio.sleep(0.05)
            committed = Committed([name async for name in User.objects.values_list("username", flat=True)])
            await world.settle()
        committed.tell(world)
        assert world.checker.faults() == []
        assert committed.rolled_back(world) == set()
        assert sum(client.recovered for client in world.clients) > CLIENTS
        assert sum(client.not_recovered for client in world.clients) == 0
        count = sum(map(len, committed.numbers.values()))
        print(f"{count} messages of {len(committed.numbers)} runs to {CLIENTS} clients")


async def arrivals(world: World, count: int) -> None:
    """Wait until so many more messages have come to one of the clients."""
    seen = world.clients[0].seen
    enough = len(seen) + count
    while len(seen) < enough:  # noqa: ASYNC110 - they come by another task
        await trio.sleep(0.01)

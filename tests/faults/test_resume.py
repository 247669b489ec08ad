"""Clients that resume by position, while sockets are cut and servers and Redis are killed: nothing is missed unnoticed.

Every client is a receiver of the delivery checker. It keeps its position over its sockets, so that each message comes
once and in order, or the client is told: by a gap event, or by ``recovered: false``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, wrap_client_stream

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..ports import free_port
from ..redis_server import KEEPS_ALL, RedisServer, needs_redis
from ..redis_setups import SentinelSetup
from .checker import GAP, DeliveryChecker, Receiver
from .resume_server import GROUP, OPTIONS

pytestmark = [pytest.mark.faults, needs_redis, pytest.mark.time_limit(240)]

#: More seeds, or fewer clients, for a longer look than that of every day.
SEEDS = range(int(os.environ.get("RESUME_SEEDS", "1")))
CLIENTS = int(os.environ.get("RESUME_CLIENTS", "200"))
MESSAGES = 150
#: Seconds; only a test that fails waits as long.
PATIENCE = 200.0
HANDSHAKE = 10.0
#: Of a socket whose server ends.
FAILURES = (HandshakeError, ConnectionClosed, BaseExceptionGroup)

_prefixes = itertools.count()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - sockets are read in many tasks
        await trio.sleep(0.01)


class Client:
    """One client, over all its sockets."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._receiver: Receiver | None = None
        self.position: str | None = None
        self.last: dict[str, int] = {}
        self.seen: list[tuple[str, int]] = []  # of publishers in other processes
        self.sockets = 0
        self.recovered = self.not_recovered = 0

    async def run(self) -> None:
        world = self._world
        while True:
            # The last sockets are not cut, so that everything comes.
            length = world.random.randrange(1, 60) if world.cuts else sys.maxsize
            try:
                await self._use_a_socket(world.random.choice(world.ports), length)
            except (
                OSError,
                HandshakeError,
                ConnectionClosed,
                trio.BrokenResourceError,
                BaseExceptionGroup,
                trio.TooSlowError,
            ) as error:
                if isinstance(error, BaseExceptionGroup) and error.split(trio.Cancelled)[0] is not None:
                    raise
            await trio.sleep(0.01)  # as clients do: a server that is away is not asked without a pause

    async def _use_a_socket(self, port: int, length: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(HANDSHAKE):  # trio-websocket waits for ever for a server that ends meanwhile
                    socket = await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", "/")
                await socket.send_message(json.dumps({"since": self.position}))
                self._joined(json.loads(await socket.get_message()))
                for _ in range(length):
                    self._got(json.loads(await socket.get_message()))
            finally:
                nursery.cancel_scope.cancel()
                await trio.aclose_forcefully(stream)  # without a closing handshake

    def _joined(self, answer: dict[str, Any]) -> None:
        self.sockets += 1
        if self._receiver is None:
            self._receiver = self._world.checker.receiver(f"client {self._number}", GROUP)
            self._world.joined += 1
        elif answer["recovered"]:
            self.recovered += 1
        else:
            self.not_recovered += 1
            self._receiver.got({"type": GAP, "lost": None})
        self.position = answer["position"]

    def _got(self, item: dict[str, Any]) -> None:
        assert self._receiver is not None
        if item["type"] == GAP:
            self._receiver.got(item | {"lost": None})  # that it is told counts here; the number is about right
            self.not_recovered += item["reason"] != "not recovered"
        else:
            self._receiver.got(item)
            self.position = item["history"]["position"]
            self.last[item["publisher"]] = item["n"]
            if item["publisher"] != "publisher":
                self.seen.append((item["publisher"], item["n"]))


class World:
    """Two server processes, a publisher here, and the clients.

    Attributes:
        cuts: whether clients cut their sockets.
    """

    def __init__(self, hosts: list[Any], seed: int) -> None:
        self.random = random.Random(seed)
        self.checker = DeliveryChecker()
        self.clients = [Client(self, number) for number in range(CLIENTS)]
        self.cuts = True
        self.joined = 0
        self.ports: list[int] = []
        self.processes: list[trio.Process] = []
        self._hosts = hosts
        self.prefix = f"resume-{os.getpid()}-{next(_prefixes)}"
        self.layer = RedisStreamsChannelLayer(hosts=hosts, prefix=self.prefix, **OPTIONS)

    async def start_server(self, place: int) -> None:
        """Start a server, in the place of one that was killed."""
        setup = json.dumps(self._hosts), self.prefix, str(free_port())
        command = [sys.executable, "-m", "tests.faults.resume_server", *setup]
        process = await trio.lowlevel.open_process(command, stdout=-1)
        assert process.stdout is not None
        self.processes[place : place + 1] = [process]
        self.ports[place : place + 1] = [int(await process.stdout.receive_some())]

    async def kill_server(self, place: int) -> None:
        self.processes[place].kill()
        await self.processes[place].wait()

    async def publish(self, count: int) -> None:
        for _ in range(count):
            await self._send()
            await trio.sleep(self.random.random() / 50)

    async def _send(self) -> int:
        message = self.checker.stamp("publisher", GROUP)
        try:
            await self.layer.group_send(GROUP, message)
        except ChannelLayerUnavailable:
            self.checker.raised(message)
        return int(message["n"])

    async def settle(self) -> None:
        """Wait until every client has the last message."""
        self.cuts = False
        while True:
            last = await self._send()
            with trio.move_on_after(3):
                await until(lambda last=last: all(it.last.get("publisher", -1) >= last for it in self.clients))
                return


@asynccontextmanager
async def world_of(hosts: list[Any], seed: int) -> AsyncIterator[World]:
    world = World(hosts, seed)
    try:
        async with world.layer, trio.open_nursery() as nursery:
            await world.start_server(0)
            await world.start_server(1)
            for client in world.clients:
                nursery.start_soon(client.run)
            await until(lambda: world.joined == CLIENTS)
            yield world
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for place in range(len(world.processes)):
                await world.kill_server(place)


async def check(
    hosts: list[Any], seed: int, fault: Callable[[World], Awaitable[None]] | None = None, *, all_recovered: bool
) -> None:
    with trio.fail_after(PATIENCE):
        async with world_of(hosts, seed) as world:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish, MESSAGES)
                if fault is not None:
                    await trio.sleep(world.random.random())
                    await fault(world)
            await world.publish(MESSAGES // 2)  # so that sockets are cut after the fault, too
            await world.settle()
        assert world.checker.faults() == []
        assert sum(client.recovered for client in world.clients) > CLIENTS
        told = sum(client.not_recovered for client in world.clients)
        assert (told == 0) is all_recovered, told


@pytest.fixture
def servers() -> Any:
    """Starts Redis with these options."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(*options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


def restart(server: RedisServer) -> Callable[[World], Awaitable[None]]:
    async def fault(_world: World) -> None:
        server.kill()
        await trio.to_thread.run_sync(server.start)

    return fault


@pytest.mark.parametrize("seed", SEEDS)
async def test_cut_sockets_miss_nothing(servers: Any, seed: int) -> None:
    await check([servers().url], seed, all_recovered=True)


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_redis_that_keeps_its_data_costs_nothing(servers: Any, seed: int) -> None:
    server = servers(*KEEPS_ALL)
    await check([server.url], seed, restart(server), all_recovered=True)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_redis_has_lost_its_data_everybody_is_told(servers: Any, seed: int) -> None:
    server = servers()
    await check([server.url], seed, restart(server), all_recovered=False)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_redis_has_lost_the_latest_data_everybody_is_told(servers: Any, seed: int) -> None:
    server = servers()

    async def fault(world: World) -> None:
        server.ask("SAVE")
        await trio.sleep(world.random.random() / 5)
        await restart(server)(world)

    await check([server.url], seed, fault, all_recovered=False)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_a_flush_everybody_is_told(servers: Any, seed: int) -> None:
    await check([servers().url], seed, lambda world: world.layer.flush(), all_recovered=False)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_a_fail_over_everybody_is_told(seed: int) -> None:
    with SentinelSetup() as setup:
        await trio.to_thread.run_sync(setup.wait_for_the_replica)

        async def fault(_world: World) -> None:
            setup.master.kill()

        await check([setup.host], seed, fault, all_recovered=False)


@pytest.mark.parametrize("seed", SEEDS)
async def test_clients_of_a_killed_server_miss_nothing(servers: Any, seed: int) -> None:
    async def fault(world: World) -> None:
        await world.kill_server(0)
        await world.start_server(0)

    await check([servers().url], seed, fault, all_recovered=True)

"""Crowds at a real server process: clients that do not read, that flood, that all come at once, that are idle."""

from __future__ import annotations

import os
import random
import signal
from itertools import pairwise

import pytest
import trio

from ..ports import free_port
from ..runner.clients import RawClient, connected
from ..server.clients import frame
from .crowds import MIB, Crowd, crowd, gather

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]


async def hears(client: RawClient, *wanted: str) -> None:
    for text in wanted:
        assert await client.hear() == text


# -- clients that do not read ----------------------------------------------------------------------------------------

READERS, DEAF = 950, 50


async def test_members_that_do_not_read_are_cut_alone() -> None:
    # Neither the deadline of a write nor the missing pong is to come first, however slow the machine is.
    async with crowd(READERS + DEAF, DISCONNECT_TIMEOUT=1, WRITE_TIMEOUT=200, PING_INTERVAL=200) as server:
        readers = await server.clients(READERS, "/room/")
        await server.clients(DEAF, "/room/", receive_buffer=4096)
        speaker, *_ = readers

        async def broadcast(number: int, text: str) -> None:
            await speaker.stream.send_all(frame(1, f"{number} {text}".encode()))
            await gather(lambda reader: hears(reader, f"{number} {text}"), readers)

        await broadcast(0, "")
        before = server.server.memory("VmRSS")
        number, text = 0, "x" * 8_000
        while (await server.figures())["websockets"] > READERS:
            for _ in range(10):
                number += 1
                await broadcast(number, text)
        assert server.server.memory() - before < DEAF * 2 * MIB
        figures = await server.becomes(lambda figures: figures["layer"]["channels"] <= READERS)
        assert figures["disconnected"] == {"1013": DEAF}
        assert figures["layer"]["channels"] == READERS
        server.leave()
        await server.forgets_everybody()
    assert "Traceback" not in server.server.text


# -- clients that flood ----------------------------------------------------------------------------------------------

CALM, FLOODERS = 490, 10


async def flood(client: RawClient) -> None:
    """Send until the server breaks the connection."""
    try:
        while True:
            await client.stream.send_all(frame(1, b"x" * 1_000) * 100)
    except trio.BrokenResourceError:
        pass


async def drain(client: RawClient) -> None:
    """Read everything and discard it."""
    try:
        while await client.stream.receive_some(65_536):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def talks(client: RawClient) -> None:
    for number in range(10):
        await client.say(f"{number}")
        await hears(client, f"{number}")


@pytest.mark.parametrize("reads", [True, False], ids=["who read the echo", "who read nothing"])
async def test_flooding_clients_meet_back_pressure(reads: bool) -> None:
    async with crowd(CALM + FLOODERS) as server:
        calm = await server.clients(CALM, "/echo/")
        flooders = await server.clients(FLOODERS, "/echo/")
        await gather(talks, calm)
        before = server.server.memory("VmRSS")
        async with trio.open_nursery() as nursery:
            for flooder in flooders:
                nursery.start_soon(flood, flooder)
                if reads:
                    nursery.start_soon(drain, flooder)
            await gather(talks, calm)
            await gather(talks, calm)
            nursery.cancel_scope.cancel()
        assert server.server.memory() - before < FLOODERS * 2 * MIB
        server.leave()
        await server.forgets_everybody()


async def test_flooding_client_is_told_1008() -> None:
    async with crowd(CALM + FLOODERS, MESSAGES_PER_SECOND=100) as server:
        calm = await server.clients(CALM, "/echo/")
        flooders = await server.clients(FLOODERS, "/echo/")
        codes: list[int | None] = []

        async def is_told(client: RawClient) -> None:
            await client.stream.send_all(frame(1, b"x") * 500)
            codes.append(await client.close_code())

        async with trio.open_nursery() as nursery:
            for flooder in flooders:
                nursery.start_soon(is_told, flooder)
            await gather(talks, calm)
        assert codes == [1008] * FLOODERS
        figures = await server.becomes(lambda figures: figures["websockets"] <= CALM)  # the clients are told first
        assert figures["ended"] == {"closed 1008": FLOODERS}
        assert figures["websockets"] == CALM
        server.leave()
        await server.forgets_everybody()


# -- clients that all come at once -----------------------------------------------------------------------------------

STORM = 1_000


async def test_thousand_reconnecting_clients_are_all_served() -> None:
    port = free_port()
    clients: list[RawClient] = []

    async def comes_back(_: int) -> RawClient:
        while True:
            await trio.sleep(random.uniform(0, 1))
            try:
                client = RawClient(await connected(port))
                await client.shake_hands("/room/")
            except (OSError, EOFError, trio.BrokenResourceError):
                continue  # the server is not there yet, or not any more
            return client

    async def is_told(client: RawClient) -> int | None:
        async with client.stream:
            return await client.close_code()

    for how, code in ((signal.SIGTERM, 1012), (signal.SIGKILL, None), (signal.SIGTERM, 1012)):
        async with crowd(STORM, port=port, SHUTDOWN_GRACE=2) as server:
            clients = await gather(comes_back, range(STORM))
            await clients[0].say("all here")
            await gather(lambda client: hears(client, "all here"), clients)
            figures = await server.figures()
            assert (figures["websockets"], figures["layer"]["channels"]) == (STORM, STORM)
            server.server.process.send_signal(how)
            assert await gather(is_told, clients) == [code] * STORM
            assert await server.server.ends() == (0 if code else -signal.SIGKILL)


# -- idle clients ----------------------------------------------------------------------------------------------------

#: ``CROWD_IDLE=20000 CROWD_ACTIVE=1000`` makes a larger crowd; it needs as many descriptors, see ``ulimit -Hn``.
IDLE = int(os.environ.get("CROWD_IDLE", "1000"))
ACTIVE = int(os.environ.get("CROWD_ACTIVE", "100"))
#: The number of crowds that come and go, one after the other.
CROWDS = 5


@pytest.mark.time_limit(900)
async def test_idle_crowd_among_active_clients_leaves_nothing() -> None:
    # The idle clients answer no ping.
    async with crowd(IDLE + ACTIVE, SHUTDOWN_GRACE=60, PING_INTERVAL=1000) as server:
        start = server.server.memory("VmRSS")
        emptied = []
        for _ in range(CROWDS):
            idle = await everybody(server)
            full = server.server.memory("VmRSS")
            server.leave()
            await server.forgets_everybody()
            emptied.append(server.server.memory("VmRSS"))
        sizes = ", ".join(f"{size / MIB:.1f}" for size in (start, full, *emptied))
        print(f"{IDLE} idle and {ACTIVE} active: MiB at the start, full, emptied {CROWDS} times: {sizes}")
        # The allocator keeps the memory of the first crowd, and a little more for some later ones. A leak takes more
        # for each crowd.
        growth = [after - before for before, after in pairwise(emptied)]
        assert min(growth) < IDLE * 512
        assert sum(growth) < len(growth) * IDLE * 1024
        idle = await everybody(server)
        server.server.process.send_signal(signal.SIGTERM)
        codes = await gather(lambda client: client.close_code(), idle)
        assert codes == [1012] * IDLE
        assert await server.server.ends() == 0
    assert "Traceback" not in server.server.text


async def everybody(server: Crowd) -> list[RawClient]:
    """Connect an idle and an active crowd. All idle clients get a message of one of them while the active ones talk."""
    active = await server.clients(ACTIVE, "/echo/")
    idle: list[RawClient] = []
    async with trio.open_nursery() as nursery:
        for client in active:
            nursery.start_soon(talks_on, client)
        idle += await server.clients(IDLE, "/room/")
        await idle[0].say("hello")
        await gather(lambda client: hears(client, "hello"), idle)
        nursery.cancel_scope.cancel()
    return idle


async def talks_on(client: RawClient) -> None:
    while True:
        await talks(client)


async def test_two_thousand_who_say_nothing_cost_forty_kibibytes_each() -> None:
    async with crowd(2_000) as server:
        server.leave()
        await server.forgets_everybody()
        before = server.server.memory("VmRSS")
        await server.clients(2_000, "/room/")
        assert (server.server.memory("VmRSS") - before) / 2_000 < 40 * 1024

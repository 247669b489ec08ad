"""Peers that are not there any more, or say nothing: a real server process lets go of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from ..layers.redis.proxy import open_proxy
from ..runner.clients import RawClient
from ..server.clients import frame
from .crowds import crowd

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

#: Short, so that nobody has to wait; the machine may be so slow that who answers is late, therefore not shorter.
LIMITS: dict[str, Any] = {"PING_INTERVAL": 4, "PONG_TIMEOUT": 4}

CLIENTS = 20


async def answers_pings(client: RawClient) -> None:
    """Read, and answer, as any library does behind an application's back."""
    while True:
        opcode, data = await client._frame()
        if opcode == 9:
            await client.stream.send_all(frame(10, data))


async def test_clients_that_answer_no_ping_are_cut_and_the_others_stay() -> None:
    """Some have a line that is dead: neither side hears of the other's end. Others hear everything and say nothing."""
    codes: list[int | None] = []

    async def says_nothing(client: RawClient) -> None:
        codes.append(await client.close_code())

    async with (
        crowd(3 * CLIENTS, **LIMITS) as server,
        open_proxy(server.port) as line,
        trio.open_nursery() as nursery,
    ):
        for client in await server.clients(CLIENTS, "/room/"):
            nursery.start_soon(answers_pings, client)
        for client in await server.clients(CLIENTS, "/room/"):
            nursery.start_soon(says_nothing, client)
        for client in await server.clients(CLIENTS, "/room/", port=line.port):
            nursery.start_soon(answers_pings, client)
        line.stall()
        # The last that a consumer gives back is its channel.
        figures = await server.becomes(lambda figures: figures["layer"]["channels"] <= CLIENTS)
        assert figures["disconnected"] == {"1006": 2 * CLIENTS}
        assert figures["ended"] == {"silent": 2 * CLIENTS}
        assert (figures["websockets"], figures["layer"]["channels"]) == (CLIENTS, CLIENTS)
        while len(codes) < CLIENTS:
            await trio.lowlevel.checkpoint()
        assert codes == [None] * CLIENTS, "there is nobody to say a code to"
        nursery.cancel_scope.cancel()


async def test_clients_that_read_nothing_are_cut() -> None:
    """By the deadline of a write, or by the kernel, which gives up on a peer that takes nothing for as long."""
    async with crowd(CLIENTS, WRITE_TIMEOUT=3) as server:
        async with trio.open_nursery() as nursery:
            for client in await server.clients(CLIENTS, "/echo/", receive_buffer=4096):
                nursery.start_soon(says_more_than_it_hears, client)
        figures = await server.forgets_everybody()
        assert figures["disconnected"] == {"1006": CLIENTS}
        assert figures["ended"] == {"slow": CLIENTS}


async def says_more_than_it_hears(client: RawClient) -> None:
    try:
        while True:
            await client.stream.send_all(frame(2, bytes(60_000)))
    except trio.BrokenResourceError:
        pass

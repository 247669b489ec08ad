"""Two processes: whichever answers has the sum, and a counter never decreases."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from ..integration.server.conftest import Server
from ..process import Program
from ..redis_server import RedisServer
from ..runner.serving import serving
from .scraping import Scraped, scrape_server

SITE = "tests.metrics.site:application"
CHAT = {"protocol": "websocket", "route": "chat/<str:name>/"}


@asynccontextmanager
async def two_processes(**environment: str) -> AsyncIterator[tuple[Program, Server]]:
    async with serving("--workers=2", app=SITE, settings="tests.metrics.settings", **environment) as runner:
        await runner.said(r"Running on", 2)
        yield runner, Server(await runner.port())


async def pid_of(client: Any) -> int:
    """The process that serves a client of the chat, from its own message."""
    await client.send_message("me")
    return int((await client.get_message()).split()[0])


@asynccontextmanager
async def one_in_each(server: Server) -> AsyncIterator[dict[int, Any]]:
    """Clients by process, until both processes have one."""
    clients: dict[int, Any] = {}
    async with AsyncExitStack() as stack:
        while len(clients) < 2:
            client = await stack.enter_async_context(server.websocket("/chat/anna/"))
            clients.setdefault(await pid_of(client), client)
        yield clients


async def until(server: Server, name: str, value: float, **labels: str) -> Scraped:
    while (scraped := await scrape_server(server.port)).of(name, **labels) != value:
        await trio.lowlevel.checkpoint()
    return scraped


@pytest.mark.slow
async def test_answer_is_the_sum_of_both_processes() -> None:
    async with two_processes() as (_, server), one_in_each(server):
        opened = (await scrape_server(server.port)).of("connections_opened_total", **CHAT)
        for _ in range(6):  # each process answers some of them
            seen = await scrape_server(server.port)
            assert seen.of("connections_opened_total", **CHAT) == opened
            assert seen.of("connections", **CHAT) == opened
            assert seen.of("processes", state="answering") == 2
            assert seen.of("processes", state="silent") == 0
            assert seen.of("threads_limit") in (None, 10, 20)
            assert (seen.of("process_resident_memory_bytes") or 0) > 30_000_000
            assert (seen.of("process_start_time_seconds") or 0) < 3_000_000_000  # not added up


@pytest.mark.slow
async def test_message_over_redis_is_counted_once_by_sender(redis_server: RedisServer) -> None:
    environment = {"TESTS_REDIS": redis_server.url, "TESTS_PREFIX": "processes"}
    async with two_processes(**environment) as (_, server), server.websocket("/chat/anna/") as client:
        before = await scrape_server(server.port)
        await client.send_message("hello")
        await client.get_message()
        after = await scrape_server(server.port)
        sent = {"layer": "default", "call": "group_send"}
        assert (after.of("layer_sent_total", **sent) or 0) - (before.of("layer_sent_total", **sent) or 0) == 1
        assert after.of("layer_healthy", layer="default") == 2
        assert after.of("layer_shards", layer="default", state="working") == 2


@pytest.mark.slow
async def test_process_that_dies_takes_no_counter_with_it() -> None:
    async with two_processes() as (runner, server):
        async with one_in_each(server) as clients:
            before = await scrape_server(server.port)
            _, client = clients.popitem()
            await client.send_message("kill")
            await runner.said(r"ended with code 7")
        seen = await until(server, "processes", 2, state="answering")
        opened = before.of("connections_opened_total", **CHAT)
        assert opened is not None
        assert (seen.of("connections_opened_total", **CHAT) or 0) >= opened
        seen = await until(server, "connections", 0, **CHAT)  # a gauge goes with its process
        assert (seen.of("websocket_received_total", route=CHAT["route"]) or 0) >= opened


@pytest.mark.slow
async def test_process_that_drains_reports_its_last_figures() -> None:
    async with two_processes() as (runner, server):
        async with one_in_each(server) as clients:
            pid, client = clients.popitem()
            for _ in range(5):
                await pid_of(client)  # nobody asks for metrics after this
            received = len(clients) + 1
            os.kill(pid, signal.SIGTERM)
            await runner.said(rf"process {pid} ended with code 0")
        seen = await until(server, "processes", 2, state="answering")
        assert (seen.of("websocket_received_total", route=CHAT["route"]) or 0) >= received + 5
        assert (seen.of("server_accepted_total") or 0) > 0


@pytest.mark.faults
async def test_stopped_process_is_told_and_its_counters_stay() -> None:
    async with two_processes() as (_, server), one_in_each(server) as clients:
        before = await scrape_server(server.port)
        pid = next(iter(clients))
        os.kill(pid, signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                while True:  # the kernel gives some of the connections to the stopped process
                    seen = None
                    with trio.move_on_after(5):
                        seen = await scrape_server(server.port)
                    if seen is not None:
                        break
            assert seen.of("processes", state="silent") == 1
            assert seen.of("processes", state="answering") == 1
            opened = before.of("connections_opened_total", **CHAT)
            assert seen.of("connections_opened_total", **CHAT) == opened
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(server, "processes", 2, state="answering")

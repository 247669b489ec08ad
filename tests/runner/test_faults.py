"""Processes that crash, parents that are killed, and impatient operators."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from ..integration.server.conftest import Server
from .serving import close_code, serving

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]


async def test_crashed_process_is_replaced_and_the_others_go_on() -> None:
    async with serving("--workers=2") as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/echo/") as client:
            await client.send_message("who")
            os.kill(int((await client.get_message()).split()[0]), signal.SIGKILL)
            assert await close_code(client) in (None, 1006)
            await runner.said(r"was killed by SIGKILL; starting another in")
            assert (await server.request("GET", "/hello/")).status == 200
        await runner.said("Running on", times=3)
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0


async def test_terminated_child_drains_and_is_replaced() -> None:
    async with serving("--workers=2") as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/echo/") as client:
            await client.send_message("who")
            os.kill(int((await client.get_message()).split()[0]), signal.SIGTERM)
            assert await close_code(client) == 1012
        await runner.said("Running on", times=3)
    assert "ended with code 0; starting another" in runner.text


async def test_children_of_a_killed_parent_drain_and_end() -> None:
    async with serving("--workers=2") as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/echo/") as client:
            runner.process.kill()
            assert await close_code(client) == 1012
        await runner.ends()
    assert "disconnected 1012" in runner.text


@pytest.mark.parametrize(("workers", "code"), [("1", -signal.SIGTERM), ("2", 128 + signal.SIGTERM)])
async def test_second_signal_ends_the_server_at_once(workers: str, code: int) -> None:
    async with serving(f"--workers={workers}") as runner:
        server = Server(await runner.port())
        async with server.websocket("/slow/") as client:
            await client.send_message("3600")
            assert await client.get_message() == "begins"
            runner.process.send_signal(signal.SIGTERM)
            await runner.said("SIGTERM: draining")
            runner.process.send_signal(signal.SIGTERM)
            assert await runner.ends() == code
    assert "call finished" not in runner.text


async def test_ctrl_c_in_a_terminal_is_one_drain() -> None:
    async with serving("--workers=2") as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/slow/") as client:
            await client.send_message("0.5")
            assert await client.get_message() == "begins"
            os.killpg(runner.process.pid, signal.SIGINT)
            assert await close_code(client) == 1012
        assert await runner.ends() == 0
    assert "call finished" in runner.text
    assert "disconnected 1012" in runner.text


async def test_request_that_has_begun_is_answered() -> None:
    async with serving() as runner:
        server = Server(await runner.port())
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await server.request("GET", "/slow/")).body == b"finished"

            nursery.start_soon(ask)
            await runner.said("request begins")
            runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0


async def test_signal_during_the_start_ends_it_in_order() -> None:
    async with serving(app="tests.runner.application:hangs") as runner:
        await runner.said("starting up")
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0
    assert "Running on" not in runner.text

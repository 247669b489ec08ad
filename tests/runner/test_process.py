"""``trio-channels serve`` as a process: starts, drains, and what it says when it cannot."""

from __future__ import annotations

import signal

import pytest

from ..server.conftest import Server
from .serving import close_code, serving


async def test_sigterm_drains_and_the_exit_code_is_0() -> None:
    async with serving() as runner:
        server = Server(await runner.port())
        assert (await server.request("GET", "/hello/")).body == str(runner.process.pid).encode()
        async with server.websocket("/echo/") as client:
            await client.send_message("hello")
            assert await client.get_message() == f"{runner.process.pid} hello"
            runner.process.send_signal(signal.SIGTERM)
            assert await close_code(client) == 1012
        assert await runner.ends() == 0
    assert "disconnected 1012" in runner.text
    assert "Traceback" not in runner.text


async def test_two_workers_share_the_socket_and_each_drains() -> None:
    async with serving("--workers=2") as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/echo/") as client:
            await client.send_message("hello")
            worker = int((await client.get_message()).split()[0])
            assert worker != runner.process.pid
            runner.process.send_signal(signal.SIGINT)
            assert await close_code(client) == 1012
        assert await runner.ends() == 0
    assert "disconnected 1012" in runner.text
    assert "Traceback" not in runner.text


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_failing_start_is_told_once_and_is_not_tried_again(workers: str) -> None:
    async with serving(f"--workers={workers}", app="tests.runner.application:fails") as runner:
        assert await runner.ends() == 3
    assert runner.text.count("cannot start: the application does not start") == 1
    assert "no database today" in runner.text
    assert "starting another" not in runner.text
    assert "Traceback" not in runner.text


async def test_an_application_that_is_not_there_is_told_by_its_name() -> None:
    async with serving("--workers=2", app="tests.runner.nowhere:application") as runner:
        assert await runner.ends() == 3
    assert runner.text.count("there is no module 'tests.runner.nowhere'") == 1


async def test_a_port_that_is_taken_is_told() -> None:
    async with serving() as first:
        port = await first.port()
        async with serving(f"--bind=127.0.0.1:{port}", "--workers=2") as second:
            assert await second.ends() == 3
    assert f"cannot listen on 127.0.0.1:{port}" in second.text


async def test_a_signal_while_it_starts_ends_it_in_order() -> None:
    async with serving(app="tests.runner.application:hangs") as runner:
        await runner.said("starting up")
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0
    assert "Running on" not in runner.text

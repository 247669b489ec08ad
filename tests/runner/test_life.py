"""A task of the application's lifespan crashes: the process drains, and ends with the code on which it is restarted."""

from __future__ import annotations

import os
import signal

import pytest

from ..integration.server.conftest import Server
from ..process import Program, program
from .serving import close_code, serving

pytestmark = pytest.mark.faults

APPLICATION = "tests.runner.application:crashing"
HYPERCORN = ("-m", "hypercorn", "--worker-class=trio", "--workers=0", "--bind=127.0.0.1:0", APPLICATION)


async def crash(process: Program) -> None:
    """Have a process' task crash while a client is connected, and see the client's end."""
    async with Server(await process.port()).websocket("/echo/") as client:
        await client.send_message("hello")
        pid, _ = (await client.get_message()).split()
        os.kill(int(pid), signal.SIGUSR1)
        assert await close_code(client) == 1012


def assert_told(process: Program) -> None:
    """The traceback once, one last line, and the orderly end of a connection."""
    assert process.text.count("the lifespan of the application failed; the server drains, and ends") == 1
    assert process.text.count("Traceback (most recent call last)") == 1, process.text
    assert process.text.count("disconnected 1012") == 1
    assert process.text.count("the lifespan of the application failed: ValueError: the feed has ended") == 1


async def test_process_drains_and_exits_with_1() -> None:
    async with serving(app=APPLICATION) as process:
        await crash(process)
        assert await process.ends() == 1
    assert_told(process)


async def test_parent_replaces_the_process() -> None:
    async with serving("--workers=2", app=APPLICATION) as process:
        await process.said("Running on", times=2)
        await crash(process)
        await process.said("ended with code 1; starting another")
        await process.said("Running on", times=3)
        process.process.send_signal(signal.SIGTERM)
        assert await process.ends() == 0
    assert_told(process)


async def test_hypercorns_command_exits_with_1() -> None:
    async with program(*HYPERCORN, DJANGO_SETTINGS_MODULE="tests.runner.settings") as process:
        await crash(process)
        assert await process.ends() == 1
    assert_told(process)

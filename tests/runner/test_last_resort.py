"""Servers that do not end: a hanging thread, a frozen loop. And processes that are replaced on purpose."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ..integration.server.conftest import Server
from .serving import close_code, serving

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

#: Seconds for the drain, and for the shutdown after it; no test waits longer than it must.
CONFIG = 'graceful_timeout = 0.5\nshutdown_timeout = 0.5\nbind = "127.0.0.1:0"\n'
SHORT = {"TESTS_DISCONNECT_TIMEOUT": "0.5"}

#: The parent, with short delays between starts.
HURRIED = """
import sys
from trio_channels.runner import supervisor, main
supervisor.FIRST_DELAY = supervisor.LONGEST_DELAY = 0.05
sys.exit(main())
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "config.toml").write_text(CONFIG)
    return f"--config={tmp_path}/config.toml"


@pytest.mark.parametrize("workers", [1, 2])
async def test_hanging_thread_is_logged_and_ended_after_the_grace(config: str, workers: int) -> None:
    async with serving(config, f"--workers={workers}", **SHORT) as runner:
        server = Server(await runner.port())
        async with server.websocket("/slow/") as client, server.websocket("/echo/") as other:
            await client.send_message("3600")
            assert await client.get_message() == "begins"
            runner.process.send_signal(signal.SIGTERM)
            assert await close_code(other) == 1012
            assert await close_code(client) == 1012
        assert await runner.ends() == 1
    assert runner.text.count("the process does not end by itself: ending it, with exit code 1") == 1
    assert "trio-channels thread 1:\n" in runner.text
    assert "in take_time\n" in runner.text
    assert "call finished" not in runner.text


async def test_frozen_loop_is_logged_and_ended(config: str) -> None:
    async with serving(config, **SHORT) as runner:
        server = Server(await runner.port())
        async with server.websocket("/frozen/") as client:
            await client.send_message("")
            await runner.said("freezes")
            runner.process.send_signal(signal.SIGTERM)
            assert await runner.ends() == 1
    assert "MainThread:\n" in runner.text
    assert "in take_time\n" in runner.text


async def test_child_with_a_frozen_loop_is_killed_by_its_parent(config: str) -> None:
    async with serving(config, "--workers=2", **SHORT) as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/frozen/") as client:
            await client.send_message("")
            await runner.said("freezes")
            runner.process.send_signal(signal.SIGTERM)
            assert await runner.ends() == 1
    assert len(lines_with(runner.text, "seconds; killing it")) == 1
    assert len(lines_with(runner.text, "was killed by SIGKILL while it was draining")) == 1


async def test_second_signal_ends_a_frozen_loop_at_once() -> None:
    async with serving() as runner:
        server = Server(await runner.port())
        async with server.websocket("/frozen/") as client:
            await client.send_message("")
            await runner.said("freezes")
            runner.process.send_signal(signal.SIGINT)
            while runner.process.poll() is None:  # nothing shows that the first signal has come
                await trio.sleep(0.05)
                runner.process.send_signal(signal.SIGINT)
            assert await runner.ends() == -signal.SIGINT


async def test_max_requests_replaces_a_process_and_loses_no_request(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("max_requests = 5\n")
    async with serving(f"--config={tmp_path}/config.toml", "--workers=2") as runner:
        server = Server(await runner.port())
        answers = [await server.request("GET", "/hello/") for _ in range(30)]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) > 2
        await runner.said("ended with code 0; starting another in", times=3)
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0


async def test_max_requests_replaces_a_process_with_a_hanging_thread(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"{CONFIG}max_requests = 5\n")
    async with serving(f"--config={tmp_path}/config.toml", "--workers=2", **SHORT) as runner:
        server = Server(await runner.port())
        async with server.websocket("/slow/") as client:
            await client.send_message("3600")
            assert await client.get_message() == "begins"
            for _ in range(15):
                assert (await server.request("GET", "/hello/")).status == 200
            await runner.said("ended with code 1; starting another in")
        assert (await server.request("GET", "/hello/")).status == 200
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0


async def test_the_parent_gives_up_after_five_failed_starts(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    app = "tests.runner.application:fails_later"
    async with serving("--workers=2", app=app, command=("-c", HURRIED), TESTS_BROKEN=str(broken)) as runner:
        server = Server(await runner.port())
        await runner.said("Running on", times=2)
        async with server.websocket("/echo/") as one, server.websocket("/echo/") as two:
            pids = []
            for client in (one, two):
                await client.send_message("who")
                pids.append(int((await client.get_message()).split()[0]))
            broken.touch()
            os.kill(pids[0], signal.SIGKILL)
            ends = {await close_code(one), await close_code(two)}
            assert ends <= {1012, 1006, None}
            assert await runner.ends() == 1
    assert runner.text.count("was killed by SIGKILL; starting another in") == 1
    assert runner.text.count("ended with code 3; starting another in") == 4
    assert runner.text.count("cannot start: the application did not start: no database today") == 5
    assert len(lines_with(runner.text, "ended with code 3: 5 failed starts in a row")) == 1
    assert runner.text.count("disconnected 1012") == 2 - pids.count(pids[0])


def lines_with(text: str, part: str) -> list[str]:
    return [line for line in text.splitlines() if part in line]

"""``trio-channels serve`` as a process: a drain, and a start that fails."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_channels.exceptions import CannotStart
from trio_channels.runner.cli import parse
from trio_channels.runner.serving import run_single

from ..integration.server.conftest import Server
from .serving import close_code, serving


@contextmanager
def few_files() -> Iterator[int]:
    """Processes that start in the block inherit a low limit of open files; gives the one up to which they may go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        yield sys.maxsize if hard == resource.RLIM_INFINITY else hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("processes", [1, 2])
async def test_process_raises_its_limit_of_files(processes: int) -> None:
    with few_files() as most:
        async with serving(f"--workers={processes}") as runner:
            server = Server(await runner.port())
            pid = int((await server.request("GET", "/hello/")).body)
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == min(most, 20_100)
    assert ("may open only" in runner.text) is (most < 20_100)
    assert "may open only 600" not in runner.text


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


async def test_failing_start_is_logged_once_and_not_tried_again() -> None:
    async with serving("--workers=2", app="tests.runner.application:fails") as runner:
        assert await runner.ends() == 3
    assert runner.text.count("cannot start: the application did not start") == 1
    assert "no database today" in runner.text
    assert "starting another" not in runner.text
    assert "Traceback" not in runner.text


def test_failure_before_serving_has_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_args: object, **_options: object) -> None:
        raise OSError("no sockets today")

    monkeypatch.setattr("trio_channels.runner.serving.worker_serve", fails)
    with pytest.raises(CannotStart, match="failed before it served") as caught:
        run_single(parse(["serve", "tests.runner.application:application", "--bind=127.0.0.1:0"]))
    assert isinstance(caught.value.__cause__, OSError)

"""The parent, in the test's process; small programs take the place of the processes that serve."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.runner import CRASHED, main
from trio_channels.runner import supervisor as supervisor_module

#: Functions of each program: say that it serves, check its socket, signal to the parent, wait for the drain, reset.
PRELUDE = """
import os, signal, socket, struct
def listens():
    assert socket.socket(fileno={listener}).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
def serves(seconds=60.0):
    os.write({lifeline}, struct.pack("!d", seconds))
def signals():
    os.kill({parent}, signal.SIGTERM)
def drains():
    os.read({lifeline}, 1)
def resets():
    with socket.socket(fileno={lifeline}) as lifeline:
        lifeline.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""

Start = Callable[..., Any]
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs the command line until it ends; the n-th process that is started runs the n-th program, or the last."""
    open_process: Start = trio.lowlevel.open_process
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(supervisor_module, "FIRST_DELAY", 0.01)

    def run(*programs: str, processes: int = 2, start: Start | None = None) -> int:
        left = list(programs)

        async def started(_command: list[str], *, env: dict[str, str], pass_fds: list[int]) -> trio.Process:
            if start is not None:
                await start()
            text = left.pop(0) if len(left) > 1 else left[0]
            program = PRELUDE.format(lifeline=pass_fds[0], listener=pass_fds[1], parent=os.getpid()) + text
            # Isolated, so that Python starts in an instant.
            process: trio.Process = await open_process([sys.executable, "-ISc", program], env={}, pass_fds=pass_fds)
            return process

        monkeypatch.setattr(trio.lowlevel, "open_process", started)
        return main(["serve", "nowhere:application", "--bind=127.0.0.1:0", f"--workers={processes}"])

    yield run
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        assert signal.getsignal(number) is handler


def test_signal_drains_all_processes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run("serves(); drains()", "serves(); signals(); drains()") == 0
    assert caplog.text.count("SIGTERM: draining") == 1


def test_second_signal_kills_all_processes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    program = "serves(); signals(); drains(); signals(); signal.pause()"
    assert run("serves(); signal.pause()", program) == 128 + signal.SIGTERM
    assert "SIGTERM: the second signal" in caplog.text
    assert caplog.text.count("was killed by SIGKILL while it was draining") == 2


def test_process_that_does_not_drain_is_killed(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run("serves(0.01); signals(); signal.pause()", "serves(); drains()") == CRASHED
    assert "did not end within 0.01 seconds; killing it" in caplog.text
    assert caplog.text.count("was killed by SIGKILL while it was draining") == 1


def test_process_that_never_serves_ends_the_parent(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run("os._exit(7)") == 7
    assert "ended with code 7, and never served" in caplog.text
    assert "starting another" not in caplog.text


def test_processes_that_end_are_started_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    starts = 0

    async def stop_with_the_last() -> None:
        nonlocal starts
        starts += 1
        if starts == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    assert run("serves(); os.kill(os.getpid(), 9)", "serves()", "serves(); drains()", start=stop_with_the_last) == 0
    ends = [record for record in caplog.records if "starting another" in record.getMessage()]
    assert {(record.levelno, record.getMessage().split(" ", 2)[2].partition(";")[0]) for record in ends} == {
        (logging.ERROR, "was killed by SIGKILL"),
        (logging.INFO, "ended with code 0"),
    }


def test_failed_starts_in_a_row_end_the_parent(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run("serves()", "serves(); drains()", "os._exit(5)") == CRASHED
    assert "ended with code 5: 5 failed starts in a row" in caplog.text
    assert caplog.text.count("ended with code 5; starting another") == 4


def test_process_that_starts_during_the_drain_drains(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def stop_meanwhile() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while "SIGTERM: draining" not in caplog.text:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()  # the sockets have been closed

    assert run("serves(); listens(); drains()", start=stop_meanwhile) == 0
    assert "starting another" not in caplog.text


def test_lifeline_that_breaks_is_a_failed_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some systems reset a pair of sockets when one end is gone; TCP sockets stand in for such a pair."""

    def connected_pair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            return listener.accept()[0], theirs

    monkeypatch.setattr(supervisor_module, "socket", SimpleNamespace(socketpair=connected_pair, SHUT_WR=socket.SHUT_WR))
    monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 0.01)
    assert run("resets(); signals(); signal.pause()") == 0
    assert "did not end within 0.01 seconds; killing it" in caplog.text

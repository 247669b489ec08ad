"""The serving process' parts, run inside the test's process."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from django.test import override_settings
from hypercorn.utils import LifespanFailureError

from trio_channels._concurrency.watchdog import Watchdog
from trio_channels.exceptions import CannotStart
from trio_channels.layers import channel_layers
from trio_channels.runner import CANNOT_START, CRASHED, main
from trio_channels.runner.lifeline import READY, Inheritance
from trio_channels.runner.serving import STOP_SIGNALS, _Process, _startup_error, warn_of_separate_layers

from ..integration.server.conftest import config_for_tests
from .application import application, fails


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the signal handlers after each test."""
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield
    for number, handler in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, handler)


class Orders:
    """A last resort that only records its deadlines."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def within(self, seconds: float, code: int) -> None:
        assert code == CRASHED
        self.seconds.append(seconds)


def serving(application: Any, inheritance: Inheritance | None = None) -> tuple[_Process, Orders]:
    orders = Orders()
    return _Process(application, config_for_tests(shutdown_timeout=3), inheritance, cast(Watchdog, orders)), orders


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_first_signal_drains_and_the_second_is_the_systems() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    process, orders = serving(application)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await until(lambda: process.started)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_DFL)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    # The signal and the end of accepting: the grace, the time of disconnect handlers and a moment; then: of closing.
    assert orders.seconds == [12.0, 12.0, 4.0]


async def test_child_reports_that_it_serves_and_ends_with_its_lifeline() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        process, _orders = serving(application, Inheritance(1, theirs.detach(), {}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run)
            await until(lambda: process.started)
            os.kill(os.getpid(), signal.SIGINT)
            await until(lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
            ours.shutdown(socket.SHUT_WR)
        assert READY.unpack(ours.recv(READY.size)) == (17.0,)


async def test_start_that_fails_never_counts_as_serving() -> None:
    process, _orders = serving(fails)
    with pytest.raises(ExceptionGroup) as failure:
        await process.run()
    assert not process.started
    assert str(_startup_error(failure.value)) == "the application did not start: no database today"


def test_server_that_never_served_reports_the_cause() -> None:
    leaf = KeyError("a")
    told = _startup_error(ExceptionGroup("", [ExceptionGroup("", [leaf])]))
    assert told.__cause__ is leaf
    both = ExceptionGroup("", [leaf, LifespanFailureError("startup", "b")])
    assert _startup_error(both).__cause__ is both


# -- the command, with applications that send signals to their own process ---------------------------------------------


async def stops_early(scope: Any, receive: Any, send: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep_forever()


async def never_ends(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await trio.testing.wait_all_tasks_blocked()
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep_forever()


async def fails_to_end(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await trio.testing.wait_all_tasks_blocked()
    os.kill(os.getpid(), signal.SIGTERM)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})


async def never_starts(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("application", "code", "message"),
    [
        ("stops_early", 0, "SIGTERM: draining"),
        ("never_ends", CRASHED, "the server failed"),
    ],
)
def test_exit_code_tells_how_it_went(
    application: str,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "config.toml").write_text("shutdown_timeout = 0.01\n")
    monkeypatch.setattr("trio_channels.runner.serving.MARGIN", 60.0)  # or this process ends, if it is slow
    options = (f"--config={tmp_path}/config.toml", "--bind=127.0.0.1:0")
    assert main(["serve", f"{__name__}:{application}", *options]) == code
    assert message in caplog.text


def test_start_that_takes_too_long_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.toml").write_text("startup_timeout = 0.01\n")
    options = (f"--config={tmp_path}/config.toml", "--bind=127.0.0.1:0")
    assert main(["serve", f"{__name__}:never_starts", *options]) == CANNOT_START
    (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert record.getMessage().startswith("cannot start: the application did not start: Timeout")
    assert "startup_timeout" in record.getMessage()
    assert record.exc_info is None


def test_failure_to_end_has_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["serve", f"{__name__}:fails_to_end", "--bind=127.0.0.1:0"]) == CRASHED
    (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert record.getMessage() == "the application did not end in order: the queue is not empty"
    assert record.exc_info is None


def test_in_memory_layer_in_several_processes_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert "default" in channel_layers
    warn_of_separate_layers(3)
    (record,) = caplog.records
    assert (
        "the channel layer 'default' is in memory, and each of the 3 processes has one of its own"
        in record.getMessage()
    )


def test_layer_that_connects_processes_is_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    shared = {"BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer"}
    with override_settings(CHANNEL_LAYERS={"default": shared}):
        warn_of_separate_layers(3)
    assert caplog.records == []


def test_layer_that_cannot_be_made_ends_the_start() -> None:
    with (
        override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "no.such.Layer"}}),
        pytest.raises(CannotStart, match=r"no\.such\.Layer"),
    ):
        warn_of_separate_layers(2)

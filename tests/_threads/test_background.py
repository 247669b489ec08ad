"""The background Trio run, and the layers that it opens on demand; its use by threads is in ``test_sync.py`` and in
``integration/outside/``."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest
import trio

from trio_channels._threads.background import Background, background
from trio_channels.exceptions import BridgeError, ChannelLayerUnavailable
from trio_channels.layers.on_demand import on_demand, open_on_demand
from trio_channels.sync import async_to_sync

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Door:
    """Something to be opened, which notes when it is opened and closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[str] = []
        self.error = error
        self.broken = trio.Event()

    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.events.append(f"opened, variable {variable.get()}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await trio.lowlevel.checkpoint()
        self.events.append("closed")


class Crashing(Door):
    """Fails some time after it was opened, as a layer whose task has crashed does."""

    async def __aexit__(self, *exc: object) -> None:
        raise ExceptionGroup("the layer's tasks", [ZeroDivisionError("a fault")])


async def test_what_is_opened_on_demand_is_closed_at_the_end_of_the_block() -> None:
    door = Door()
    async with on_demand():
        await open_on_demand(door)
        assert door.events == ["opened, variable unset"]
    assert door.events[1:] == ["closed"]


async def test_ten_tasks_that_need_it_at_once_have_it_opened_once() -> None:
    door = Door()
    async with on_demand():
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(open_on_demand, door)
        assert len(door.events) == 1


async def test_its_tasks_do_not_keep_the_context_of_who_came_first() -> None:
    door = Door()
    async with on_demand():
        variable.set("of a request")
        await open_on_demand(door)
    assert door.events[0] == "opened, variable unset"


async def test_what_could_not_be_opened_is_tried_again_by_the_next_call() -> None:
    door = Door(OSError("no such host"))
    async with on_demand():
        with pytest.raises(ChannelLayerUnavailable, match="no such host"):
            await open_on_demand(door)
        door.error = None
        await open_on_demand(door)
    assert door.events == ["opened, variable unset", "closed"]


async def test_cancelled_caller_leaves_the_opening_to_others() -> None:
    door = Door()
    async with on_demand():
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_on_demand(door)
        await open_on_demand(door)
    assert door.events == ["opened, variable unset", "closed"]


async def test_what_fails_later_is_logged_and_opened_again_by_the_next_use(caplog: pytest.LogCaptureFixture) -> None:
    door = Crashing()
    async with on_demand():
        await open_on_demand(door)
        await open_on_demand(door)  # a second request means that the door is not open any more
        assert len(door.events) == 2
    first, *_ = caplog.records
    assert "has failed; its next use opens it again" in first.message


async def test_closing_does_not_wait_for_what_hangs(autojump_clock: trio.testing.MockClock) -> None:
    class Hanging(Door):
        async def __aexit__(self, *exc: object) -> None:
            await trio.sleep_forever()

    async with on_demand():
        await open_on_demand(Hanging())


async def test_in_another_run_nothing_is_opened_on_demand() -> None:
    async with on_demand():
        pass
    with pytest.raises(ChannelLayerUnavailable, match="is not open in this Trio run: serve through"):
        await open_on_demand(Door())


# -- the run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [background.run, lambda wait: async_to_sync(wait)()], ids=["bare", "async_to_sync"])
def test_call_that_a_signal_handler_interrupts_is_cancelled(run: Callable[[Any], Any]) -> None:
    class TimeIsUp(Exception):
        pass

    events: list[str] = []

    def time_is_up(*_args: object) -> None:
        raise TimeIsUp

    async def wait() -> None:
        events.append("waits")
        trio.lowlevel.spawn_system_task(interrupt)
        try:
            await trio.sleep_forever()
        finally:
            events.append("cleans up")

    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, time_is_up)
    try:
        with pytest.raises(TimeIsUp):
            run(wait)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert events == ["waits", "cleans up"]


def test_run_that_has_crashed_is_replaced_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    own = Background()

    async def which() -> int:
        return id(trio.lowlevel.current_trio_token())

    async def crash() -> None:
        trio.lowlevel.spawn_system_task(fail)
        await trio.sleep_forever()

    async def fail() -> None:
        raise ZeroDivisionError

    own.run(which)
    with pytest.raises((trio.Cancelled, trio.RunFinishedError)):
        own.run(crash)
    thread = own._thread
    assert thread is not None
    thread.join()
    own.run(which)
    assert own._thread is not thread
    own._end()


def test_run_that_cannot_be_started_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(trio, "run", refuse)
    with pytest.raises(BridgeError, match="could not be started"):
        Background().run(trio.lowlevel.checkpoint)


@pytest.mark.parametrize("used", [True, False])
def test_after_its_end_it_takes_no_more_calls(used: bool) -> None:
    own = Background()
    if used:
        own.run(trio.lowlevel.checkpoint)
    own._end()
    with pytest.raises(BridgeError, match="while the process is ending"):
        own.run(trio.lowlevel.checkpoint)

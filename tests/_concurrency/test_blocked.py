"""Code that blocks the event loop is reported, with its stack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_channels._concurrency import blocked
from trio_channels._concurrency.blocked import reporting

#: Short, so that the tests are. The reports wait for nothing but that a step takes longer.
LIMIT = 0.002
#: Seconds in which a report must come on a busy machine.
PATIENCE = 30


class Reports(list[tuple[float, str, str]]):
    """The reports so far."""

    def add(self, *report: Any) -> None:
        self.append(report)

    def of(self, function: str) -> list[tuple[float, str, str]]:
        """The reports in whose stack the function is. A busy machine may make others."""
        return [report for report in self if f", in {function}\n" in report[2]]

    def block(self, function: str) -> None:
        """Block until the caller is reported."""
        begin = time.monotonic()
        while not self.of(function):
            assert time.monotonic() < begin + PATIENCE
            time.sleep(LIMIT)


@pytest.fixture
def reports() -> Reports:
    return Reports()


class Looks:
    """The watcher's looks at steps that take too long."""

    def __init__(self) -> None:
        self._blocked = False
        self._looked = threading.Event()
        self._look = blocked._look

    def look(self, *args: Any) -> None:
        was_blocked = self._blocked
        self._look(*args)
        if was_blocked:
            self._looked.set()

    def block(self) -> None:
        """Block until the watcher has looked at this step."""
        self._blocked = True
        assert self._looked.wait(PATIENCE)
        self._blocked = False
        self._looked.clear()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(blocked, "_look", looks.look)
    return looks


async def test_step_that_blocks_is_reported_with_its_stack(reports: Reports) -> None:
    async def handler() -> None:
        reports.block("handler")

    with reporting(LIMIT, reports.add):
        await trio.lowlevel.checkpoint()  # the next step is the first that Trio tells of
        await handler()
    ((seconds, task, stack),) = reports.of("handler")
    assert seconds >= LIMIT
    assert "test_step_that_blocks" in task
    assert "/trio/" not in stack


async def test_place_is_reported_once(reports: Reports, looks: Looks) -> None:
    async def handler() -> None:
        looks.block()

    with reporting(LIMIT, reports.add):
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            await handler()
    assert len(reports.of("handler")) == 1


async def test_many_short_steps_are_not_reported(reports: Reports) -> None:
    with reporting(PATIENCE, reports.add):
        for _ in range(100):
            await trio.lowlevel.checkpoint()
    assert reports == []


def in_module(name: str, block: Callable[[], None]) -> Callable[[], None]:
    """A function of a module that blocks."""
    space: dict[str, Any] = {"__name__": name, "block": block}
    exec("def blocking():\n    block()", space)
    function: Callable[[], None] = space["blocking"]
    return function


@pytest.mark.parametrize(("module", "expected"), [("bdb", 0), ("pydevd.trace", 0), ("prices", 1)])
async def test_debugger_is_not_reported(module: str, expected: int, reports: Reports, looks: Looks) -> None:
    with reporting(LIMIT, reports.add):
        await trio.lowlevel.checkpoint()
        in_module(module, looks.block)()
    assert len(reports.of("blocking")) == expected


async def test_step_that_has_ended_is_not_reported(reports: Reports) -> None:
    steps = blocked._Steps()
    task = trio.lowlevel.current_task()
    blocked._look(steps, (time.monotonic(), task), threading.get_ident(), reports.add, {})
    assert reports == []


async def test_framework_alone_is_shown(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    class Everything:
        def __contains__(self, _package: object) -> bool:
            return True

    monkeypatch.setattr(blocked, "_FRAMEWORK", Everything())

    async def handler() -> None:
        reports.block("handler")

    with reporting(LIMIT, reports.add):
        await trio.lowlevel.checkpoint()
        await handler()
    assert reports.of("handler")

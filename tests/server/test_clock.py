"""The server's clock: times are kept, changed and forgotten; none is called early or twice."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from trio_channels.server.clock import TICK, Clock


class Timed:
    """Notes the times of its calls, and may set the next."""

    def __init__(self, clock: Clock, again: float | None = None) -> None:
        self.tick: int | None = None
        self.calls: list[float] = []
        self._clock = clock
        self._again = again

    def on_time(self) -> None:
        self.calls.append(trio.current_time())
        if self._again is not None:
            self._clock.set(self, self._again)


@pytest.fixture
async def ticking(nursery: trio.Nursery) -> Clock:
    clock = Clock()
    nursery.start_soon(clock.run)
    return clock


async def test_object_is_called_once_at_its_time(ticking: Clock, autojump_clock: Any) -> None:
    timed = Timed(ticking)
    begun = trio.current_time()
    ticking.set(timed, 3)
    await trio.sleep(60)
    assert [0 <= call - begun - 3 <= 1.1 * TICK for call in timed.calls] == [True]
    assert timed.tick is None


async def test_sooner_time_is_not_held_up_by_a_later_one(ticking: Clock, autojump_clock: Any) -> None:
    late, soon = Timed(ticking), Timed(ticking)
    begun = trio.current_time()
    ticking.set(late, 50)
    await trio.sleep(1)
    ticking.set(soon, 1)
    await trio.sleep(10)
    assert [0 <= call - begun - 2 <= 1.1 * TICK for call in soon.calls] == [True]
    assert late.calls == []


async def test_new_time_replaces_the_old_one(ticking: Clock, autojump_clock: Any) -> None:
    timed = Timed(ticking)
    begun = trio.current_time()
    ticking.set(timed, 1)
    ticking.set(timed, 5)
    await trio.sleep(60)
    assert [0 <= call - begun - 5 <= 1.1 * TICK for call in timed.calls] == [True]


async def test_forgotten_object_is_not_called(ticking: Clock, autojump_clock: Any) -> None:
    kept, forgotten = Timed(ticking), Timed(ticking)
    ticking.set(kept, 1)
    ticking.set(forgotten, 1)
    ticking.forget(forgotten)
    ticking.forget(forgotten)
    await trio.sleep(60)
    assert len(kept.calls) == 1
    assert forgotten.calls == []


async def test_object_that_sets_its_next_time_is_called_again(ticking: Clock, autojump_clock: Any) -> None:
    timed = Timed(ticking, again=10)
    ticking.set(timed, 10)
    await trio.sleep(35)
    assert len(timed.calls) == 3
    assert repr(ticking) == "<Clock for 1 connections>"


async def test_infinity_is_never(ticking: Clock, autojump_clock: Any) -> None:
    timed = Timed(ticking)
    ticking.set(timed, math.inf)
    await trio.sleep(1_000)
    assert timed.calls == []


async def test_objects_of_one_tick_may_forget_one_another(ticking: Clock, autojump_clock: Any) -> None:
    class Rival(Timed):
        def on_time(self) -> None:
            super().on_time()
            ticking.forget(other if self is one else one)

    one, other = Rival(ticking), Rival(ticking)
    ticking.set(one, 1)
    ticking.set(other, 1)
    await trio.sleep(60)
    assert sorted([len(one.calls), len(other.calls)]) == [0, 1]

"""One task that calls a server's connections at their times. A task and a cancel scope for each would cost more."""

from __future__ import annotations

import heapq
import math
from typing import Protocol

import trio

from .._concurrency.wakeup import Wakeup

#: Seconds. Times are rounded up to it, so that one wake-up serves all connections that are due about then.
TICK = 0.05


class Timed(Protocol):
    """An object that a :class:`Clock` calls."""

    tick: int | None  # set by the clock: None while it is not going to call

    def on_time(self) -> None:
        """Called at the time that was set; must not raise."""


class Clock:
    """Calls each :class:`Timed` object at its time."""

    def __init__(self) -> None:
        self._due: dict[int, set[Timed]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _due
        self._sooner = Wakeup()

    def __repr__(self) -> str:
        return f"<Clock for {sum(map(len, self._due.values()))} connections>"

    def set(self, timed: Timed, seconds: float) -> None:
        """Call the object in so many seconds, and not at the time that was set before. Infinity: never."""
        self.forget(timed)
        if seconds == math.inf:
            return
        timed.tick = tick = int((trio.current_time() + seconds) / TICK) + 1  # never the present one
        if tick not in self._due:
            self._due[tick] = set()
            heapq.heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._sooner.set()
        self._due[tick].add(timed)

    def forget(self, timed: Timed) -> None:
        """Do not call the object."""
        if timed.tick is not None:
            self._due[timed.tick].discard(timed)
            timed.tick = None

    async def run(self) -> None:
        """Call the objects, until cancelled; a cancellation interrupts no call."""
        while True:
            with trio.move_on_at(self._ticks[0] * TICK if self._ticks else math.inf):
                await self._sooner.wait()
            while self._ticks and self._ticks[0] * TICK <= trio.current_time():
                due = self._due[self._ticks[0]]
                while due:
                    timed = due.pop()
                    timed.tick = None
                    timed.on_time()
                del self._due[heapq.heappop(self._ticks)]

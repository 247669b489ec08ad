"""Calls functions at their times, in one task of a Trio run."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable

import trio

from ..._concurrency.wakeup import Wakeup

logger = logging.getLogger("trio_channels.layers.presence")


class Alarm:
    """The functions that are due, and the task that calls them.

    A layer in memory is never opened, so no nursery of its own could hold the task. It is a system task of the Trio
    run: it lives while something is due, and at most as long as the run.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._wakeup = Wakeup()
        self._runs = False

    def __repr__(self) -> str:
        return f"<Alarm with {len(self._due)} functions due>"

    def at(self, time: float, function: Callable[[], object]) -> None:
        """Call a function at that time of Trio's clock."""
        heapq.heappush(self._due, (time, next(self._numbers), function))
        if not self._runs:
            self._runs = True
            trio.lowlevel.spawn_system_task(self._run, name="the alarm of presence")
        elif self._due[0][2] is function:
            self._wakeup.set()

    async def _run(self) -> None:
        try:
            while self._due:
                with trio.move_on_at(self._due[0][0]):
                    await self._wakeup.wait()
                while self._due and self._due[0][0] <= trio.current_time():
                    function = heapq.heappop(self._due)[2]
                    try:
                        function()
                    except Exception:
                        # An exception of a system task would end the whole Trio run.
                        logger.exception("a due change of presence failed")
        finally:
            self._runs = False

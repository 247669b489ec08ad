"""Restarts a layer's tasks when they crash. A task that crashes again and again makes the layer broken.

A crash is an exception that the task does not handle, so a defect. Tasks handle lost connections themselves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ..._concurrency.backoff import BackOff

logger = logging.getLogger("trio_channels.layers.redis")

#: Crashes in a row after which a task counts as broken, and seconds without a crash after which it counts as stable.
CRASHES, STABLE = 5, 10.0
#: Seconds between two starts of a broken task.
LONG_PAUSE = 30.0


@dataclass(slots=True)
class _Record:
    """One task: its crashes in a row, the last error, and the Trio time at which it was started."""

    crashes: int = 0
    last: str = ""
    running_since: float = math.inf


class Supervisor:
    """Runs tasks, and restarts those that crash, after pauses that grow.

    Args:
        name: for log lines.
        on_broken: called with a sentence when a task has crashed :data:`CRASHES` times in a row.
    """

    def __init__(self, name: str, on_broken: Callable[[str], None]) -> None:
        self._name = name
        self._on_broken = on_broken
        self._clock = trio.lowlevel.current_clock()  # `problem` is also read in other threads
        self._records: dict[str, _Record] = {}

    def __repr__(self) -> str:
        return f"<Supervisor of {self._name}, {self.problem or 'all is well'}>"

    @property
    def crashes(self) -> int:
        """Crashes of all tasks, each counted since the task was last stable."""
        return sum(record.crashes for record in list(self._records.values()))

    @property
    def problem(self) -> str | None:
        """A sentence about the broken task, or None. Thread-safe."""
        now = self._clock.current_time()
        for task, record in list(self._records.items()):
            if record.crashes >= CRASHES and now - record.running_since < STABLE:
                return f"{task} of {self._name} has crashed {record.crashes} times in a row: {record.last}"
        return None

    async def run(self, task: str, run: Callable[[], Awaitable[object]]) -> None:
        """Run a task until cancelled, and restart it after each crash.

        Args:
            task: its name in log lines.
            run: the task; it must not return.

        Cancellation: ends the task.
        """
        record = self._records[task] = _Record()
        back_off = BackOff()
        while True:
            record.running_since = trio.current_time()
            try:
                await run()
            except Exception as error:
                if trio.current_time() - record.running_since >= STABLE:
                    record.crashes = 0
                    back_off.reset()
                record.crashes += 1
                record.last = f"{type(error).__name__}: {error}"
                record.running_since = math.inf
                logger.exception("%s of %s crashed and is restarted", task, self._name)
                if record.crashes == CRASHES:
                    self._on_broken(self.problem or "")
            if record.crashes < CRASHES:
                await back_off.wait()
            else:
                await trio.sleep(LONG_PAUSE)

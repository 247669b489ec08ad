"""The smallest wake-up: one task waits, anybody in the same Trio run rings."""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any

import outcome
import trio

from . import park


class Bell:
    """Wakes the one task that waits on it; a ring that nobody waits for is kept for the next :meth:`wait`.

    It costs one task switch and no allocation, where an event and a memory channel each cost about a third more: it is
    on every message's path. Rings do not add up: after waking, the waiter looks at everything that may have changed.
    """

    # Whether a task is waiting is said by the task: Trio forgets `custom_sleep_data` whenever it reschedules one, for
    # its cancellation, too. So there is nothing to be done about a cancelled wait, and nothing to make for one.
    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._waiter: trio.lowlevel.Task | None = None
        self._rung = False

    def __repr__(self) -> str:
        return f"<Bell {'waited for' if self.waited_for else 'rung' if self._rung else 'quiet'}>"

    @property
    def waited_for(self) -> bool:
        """Whether a task is waiting now."""
        return self._waiter is not None and self._waiter.custom_sleep_data is self

    def ring(self) -> None:
        """Wake the waiter. Must be called in the waiter's Trio run; see :func:`trio.lowlevel.TrioToken`."""
        if not self.hand_over(park.WOKEN):
            self._rung = True

    def hand_over(self, result: outcome.Outcome[object]) -> bool:
        """Wake the waiter with what it shall get; returns whether there was one. Nothing is kept if not."""
        waiter = self._waiter
        if waiter is None or waiter.custom_sleep_data is not self:
            return False
        trio.lowlevel.reschedule(waiter, result)
        return True

    @types.coroutine
    def wait(self) -> Generator[Any, Any, object]:
        """Wait for a ring; returns at once, without a checkpoint, if one is kept.

        Returns: True if a ring was kept; what was handed over; or None.

        Raises:
            trio.BusyResourceError: another task is waiting.

        Cancellation: a cancelled wait consumes no ring, and loses nothing that was handed over.
        """
        if self._rung:
            self._rung = False
            return True
        if self.waited_for:
            raise trio.BusyResourceError("another task is already waiting for this bell")
        self._waiter = task = trio.lowlevel.current_task()
        task.custom_sleep_data = self
        if _MESSAGE is None:
            return (yield from trio.lowlevel.wait_task_rescheduled(_give_up).__await__())  # noqa: ASYNC105
        return (yield _MESSAGE).unwrap()


def _give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


_MESSAGE = park.message(_give_up)

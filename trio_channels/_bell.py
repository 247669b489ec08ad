"""The smallest wake-up: one task waits, anybody in the same Trio run rings."""

from __future__ import annotations

from collections.abc import Awaitable, Generator

import outcome
import trio


class _AlreadyRung:
    """What is awaited where there is nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, bool]:
        yield from ()
        return True


_ALREADY_RUNG = _AlreadyRung()


class Bell:
    """Wakes the one task that waits on it; a ring that nobody waits for is kept for the next :meth:`wait`.

    It costs one task switch and no allocation, where an event and a memory channel each cost about a third more: it is
    on every message's path. Rings do not add up: after waking, the waiter looks at everything that may have changed.
    """

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._waiter: trio.lowlevel.Task | None = None
        self._rung = False

    def __repr__(self) -> str:
        return f"<Bell {'waited for' if self._waiter else 'rung' if self._rung else 'quiet'}>"

    @property
    def waited_for(self) -> bool:
        """Whether a task is waiting now."""
        return self._waiter is not None

    def ring(self) -> None:
        """Wake the waiter. Must be called in the waiter's Trio run; see :func:`trio.lowlevel.TrioToken`."""
        waiter = self._waiter
        if waiter is None:
            self._rung = True
        else:
            self._waiter = None
            trio.lowlevel.reschedule(waiter)

    def hand_over(self, result: outcome.Outcome[object]) -> bool:
        """Wake the waiter with what it shall get; returns whether there was one. Nothing is kept if not."""
        waiter = self._waiter
        if waiter is None:
            return False
        self._waiter = None
        trio.lowlevel.reschedule(waiter, result)
        return True

    def wait(self) -> Awaitable[object]:
        """Wait for a ring; returns at once, without a checkpoint, if one is kept.

        Returns: True if a ring was kept; what was handed over; or None.

        To be awaited at once, in the task that called it, as it is not a coroutine function: of those there would be
        one more to wake, and to hold in memory meanwhile, for each connection that a message goes to.

        Raises:
            trio.BusyResourceError: another task is waiting.

        Cancellation: a cancelled wait consumes no ring, and loses nothing that was handed over.
        """
        if self._rung:
            self._rung = False
            return _ALREADY_RUNG
        if self._waiter is not None:
            raise trio.BusyResourceError("another task is already waiting for this bell")
        self._waiter = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105  # by the caller

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

"""The queue for a thread: one place in it, and the log's advice when it is long."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import trio

from .thread import PoolThread

#: Seconds of waiting for a thread after which a warning is logged; a call takes milliseconds.
STARVING = 5.0
#: Seconds between two such warnings.
WARN_EVERY = 60.0
#: Holders of threads that a warning names.
_NAMED = 3


class Turn:
    """A place in the queue. It is kept when its task stops waiting for a moment, to log a warning."""

    __slots__ = ("_task", "thread")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self.thread: PoolThread | None = None

    async def wait(self) -> PoolThread:
        """Wait for the thread. Cancellation: the place is kept, and a thread that comes meanwhile too."""
        if self.thread is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        return cast(PoolThread, self.thread)

    def _stop_waiting(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def come(self, thread: PoolThread) -> None:
        """Hand over a thread, which is held."""
        self.thread = thread
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)


def remedy(held: Collection[PoolThread]) -> str:
    """What to do about a long queue, given the threads that are held while no call runs on them."""
    if not held:
        return "find the slow calls, or raise WORKER_THREADS"
    holders = sorted({thread.holder for thread in held if thread.holder})
    named = f" ({', '.join(holders[:_NAMED])}{', ...' if len(holders) > _NAMED else ''})" if holders else ""
    return (
        f"{len(held)} of the threads are held between two calls of a request or a block{named}: raise WORKER_THREADS, "
        f"wait less after synchronous code in async views, or name the packages that leave nothing on a thread in "
        f"THREAD_NEUTRAL"
    )

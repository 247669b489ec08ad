"""Ends a process by force that does not end by itself, because a thread hangs or the Trio run is frozen.

Trio never abandons a call in a thread. So a process that was asked to end may still run after its time is up. Then this
module logs the stacks of the threads at work and exits.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
import traceback
from itertools import takewhile
from types import FrameType
from typing import Self

#: Seconds for writing the last log lines: the log itself may hang.
REPORTING = 5.0

#: The innermost function of ours, or Trio's, in a thread that waits for work: module and name.
_IDLE = frozenset({("trio_channels._threads.thread", "_serve"), ("trio._core._thread_cache", "_work")})


class Watchdog:
    """A thread that can end the process, during a ``with`` block.

    Its methods may be called from every thread, and from a signal handler.

    Args:
        logger: gets the last line.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        #: A SimpleQueue: a signal handler may call its put() during another put(), unlike that of other queues.
        self._orders: queue.SimpleQueue[tuple[float, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._wait, name="trio-channels watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._orders.put(None)
        self._thread.join()

    def within(self, seconds: float, code: int) -> None:
        """End the process in `seconds`, with exit code `code`. A later call replaces an earlier one."""
        self._orders.put((time.monotonic() + seconds, code))

    def _wait(self) -> None:
        order = self._orders.get()
        while order is not None:
            moment, code = order
            try:
                order = self._orders.get(timeout=max(0.0, moment - time.monotonic()))
            except queue.Empty:
                self._end(code)
                return

    def _end(self, code: int) -> None:
        reporter = threading.Thread(target=self._report, args=(code,), daemon=True)
        reporter.start()
        reporter.join(REPORTING)
        os._exit(code)

    def _report(self, code: int) -> None:
        self._logger.critical(
            "the process does not end by itself: ending it, with exit code %d. Threads at work:\n%s",
            code,
            threads_at_work(),
        )
        logging.shutdown()


def threads_at_work() -> str:
    """The stacks of all threads except idle ones and those of this module."""
    frames = sys._current_frames()
    return "".join(
        f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for thread in threading.enumerate()
        if thread.ident in frames and not is_idle(frames[thread.ident])
    )


def is_idle(innermost: FrameType) -> bool:
    """Whether the thread with this innermost frame waits for work, or is one of this module's."""
    stack = [(frame.f_globals.get("__name__"), frame.f_code.co_name) for frame, _ in traceback.walk_stack(innermost)]
    ours = takewhile(lambda place: place[0] == stack[0][0], stack)  # up to the caller of that module
    return not _IDLE.isdisjoint(ours) or any(module == __name__ for module, _ in stack)

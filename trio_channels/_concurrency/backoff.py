"""Delays between attempts: doubled after each failure, up to a longest one."""

from __future__ import annotations

import random

import trio

FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0

#: No delay is doubled more often. Two to this power is still a float.
_MOST_DOUBLINGS = 64


def delay_after(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after this many failures in a row: `first` after one, doubled after each more up to `longest`."""
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)


class BackOff:
    """Delays between attempts, with jitter, so that clients that failed together do not come back together.

    Args:
        first: seconds to wait after the first failure, before jitter.
        longest: seconds to wait at most, before jitter.

    Call :meth:`reset` after a success. An answered command is a success; a connection is not: a server that is loading
    accepts connections, too.
    """

    def __init__(self, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def next_delay(self) -> float:
        """Count a failure; returns the seconds to wait after it, half to all of the delay that it has reached."""
        self._failures += 1
        return delay_after(self._failures, self._first, self._longest) * random.uniform(0.5, 1.0)

    async def wait(self) -> None:
        """Count a failure and sleep. Cancellation: at any time."""
        await trio.sleep(self.next_delay())

    def reset(self) -> None:
        """Start again with the first delay."""
        self._failures = 0

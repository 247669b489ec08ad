"""When a client comes back after its connection has ended, and when it does not."""

from __future__ import annotations

import random

from .._asgi.close_codes import SERVICE_RESTART, TRY_AGAIN_LATER
from .._concurrency.backoff import delay_after

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
#: Seconds; a connection or a join that has held so long begins its delays anew.
STABLE = 10.0

#: Seconds after codes that ask for time: a server that restarts does not get all its clients back at once.
_ASKED_FOR = {SERVICE_RESTART: (1.0, 5.0), TRY_AGAIN_LATER: (5.0, 15.0)}

#: HTTP statuses below 500 that pass: Request Timeout, Too Early, Too Many Requests.
_PASSING = (408, 425, 429)


def back_off(attempt: int, code: int | None = None) -> float:
    """Seconds before an attempt: at random, half to all of a delay that doubles from one second up to half a minute.

    Args:
        attempt: counts from 1 after each end of a connection that was stable.
        code: the close code. After 1012, "service restart", it is at least one second, after 1013, "try again later",
            at least five.
    """
    most = delay_after(attempt, FIRST_DELAY, LONGEST_DELAY)
    low, high = _ASKED_FOR.get(code or 0, (0.0, 0.0))
    return random.uniform(max(most / 2, low), max(most, high))


def is_final(code: int) -> bool:
    """Whether a close code means "do not come back": those of applications do, 4000 to 4999."""
    return 4000 <= code <= 4999


def is_final_status(status: int | None) -> bool:
    """Whether the HTTP status of a denied handshake will be the same the next time."""
    return status is not None and 400 <= status < 500 and status not in _PASSING

"""How long to wait before the next try."""

from __future__ import annotations

import random

import trio

FIRST_BACK_OFF, LAST_BACK_OFF = 0.05, 2.0


class BackOff:
    """Pauses between tries: jittered, doubling, reset by success.

    Success is an answered command, not a connection: a server that is loading, or is a replica, takes those, too.
    """

    def __init__(self) -> None:
        self._next = FIRST_BACK_OFF

    async def wait(self) -> None:
        """Sleep."""
        await trio.sleep(self._next * random.uniform(0.5, 1.0))
        self._next = min(self._next * 2, LAST_BACK_OFF)

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next = FIRST_BACK_OFF

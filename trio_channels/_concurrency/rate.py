"""A limit on the number of messages in a second."""

from __future__ import annotations

import trio


class Rate:
    """Token bucket: ``per_second`` tokens a second (0: no limit), bursts of one second's worth."""

    __slots__ = ("_allowance", "_counted_at", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._allowance = float(per_second)
        self._counted_at = 0.0

    def exceeded(self) -> bool:
        """Take a token; returns whether there was none left."""
        if not self.per_second:
            return False
        now = trio.current_time()
        grown = self._allowance + (now - self._counted_at) * self.per_second
        self._allowance = min(self.per_second, grown) - 1
        self._counted_at = now
        return self._allowance < 0

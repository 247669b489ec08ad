"""How often something may happen."""

from __future__ import annotations

import trio


class Rate:
    """So many times in each second, and as many at once after a pause.

    Args:
        per_second: how often; 0 for as often as one likes.
    """

    __slots__ = ("_allowance", "_counted_at", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._allowance = float(per_second)
        self._counted_at = 0.0

    def exceeded(self) -> bool:
        """Count one more time; whether that is too often."""
        if not self.per_second:
            return False
        now = trio.current_time()
        grown = self._allowance + (now - self._counted_at) * self.per_second
        self._allowance = min(self.per_second, grown) - 1
        self._counted_at = now
        return self._allowance < 0

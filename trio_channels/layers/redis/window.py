"""Which messages have been seen: a sliding window for each sender.

A command whose answer was lost is sent again, and may have been carried out the first time. Its token, the sender and a
number, is the same both times.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

#: Numbers remembered for each sender: as many as a link has under way at a time, so that all of them can come again. A
#: window rather than the highest number: after an error reply a command comes again behind later ones.
WIDTH = 1_024
#: Seconds after which a silent sender is forgotten. Its commands come again only while their callers wait.
MEMORY = 300.0


@dataclass(slots=True)
class _Window:
    """What one sender has sent of late."""

    seen: set[bytes] = field(default_factory=set)
    order: deque[bytes] = field(default_factory=deque)
    last_heard: float = 0.0


class DuplicateFilter:
    """Says which tokens have been seen before."""

    def __init__(self) -> None:
        self._senders: OrderedDict[bytes, _Window] = OrderedDict()
        self.suppressed = 0

    def __repr__(self) -> str:
        return f"<DuplicateFilter of {len(self._senders)} senders, {self.suppressed} suppressed>"

    def is_duplicate(self, token: bytes, now: float) -> bool:
        """Whether this token was seen within its sender's last ``WIDTH``; remembers it. `now` never goes back."""
        sender, _, number = token.rpartition(b"-")
        window = self._senders.get(sender)
        if window is None:
            self._forget_silent(now - MEMORY)
            window = self._senders[sender] = _Window()
        else:
            self._senders.move_to_end(sender)
        window.last_heard = now
        if number in window.seen:
            self.suppressed += 1
            return True
        window.seen.add(number)
        window.order.append(number)
        if len(window.order) > WIDTH:
            window.seen.discard(window.order.popleft())
        return False

    def _forget_silent(self, since: float) -> None:
        while self._senders and next(iter(self._senders.values())).last_heard < since:
            self._senders.popitem(last=False)

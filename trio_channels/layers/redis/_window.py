"""Which messages have been seen: a sliding window for each sender.

A command whose answer was lost is sent again, and may have been carried out the first time. Its token, the sender and a
number, is the same both times.
"""

from __future__ import annotations

from collections import OrderedDict, deque

#: Numbers remembered for each sender. A window rather than the highest number: after an error reply a command comes
#: again behind later ones.
WIDTH = 1_024
#: Senders that have been silent longest are forgotten beyond this number.
SENDERS = 10_000


class DuplicateFilter:
    """Says which tokens have been seen before."""

    def __init__(self) -> None:
        self._senders: OrderedDict[bytes, tuple[set[bytes], deque[bytes]]] = OrderedDict()
        self.suppressed = 0

    def is_duplicate(self, token: bytes) -> bool:
        """Whether this token was seen within its sender's last ``WIDTH``; remembers it."""
        sender, _, number = token.rpartition(b"-")
        window = self._senders.get(sender)
        if window is None:
            window = self._senders[sender] = (set(), deque())
            if len(self._senders) > SENDERS:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(sender)
        seen, order = window
        if number in seen:
            self.suppressed += 1
            return True
        seen.add(number)
        order.append(number)
        if len(order) > WIDTH:
            seen.discard(order.popleft())
        return False

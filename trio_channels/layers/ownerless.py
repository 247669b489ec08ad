"""Mailboxes of ``new_channel`` and of named channels: no ``with`` block ends them, so they end when unused.

The rules:

- A channel of ``new_channel`` costs nothing while nothing waits in it: its mailbox is forgotten as soon as a task has
  taken the last message. Its name tells which hub made it, so that the mailbox can be made again.
- Expired messages are deleted, and mailboxes that nobody uses any more forgotten, at the next use of such a channel.
- A member of a group, and a named channel that a task has received on, are kept for ``group_expiry``.
"""

from __future__ import annotations

import trio

from .mailbox import Mailbox
from .message import Counters
from .names import reply_mark


class OwnerlessMailbox(Mailbox):
    """A mailbox without an owner."""

    __slots__ = ("_received_on", "_receiving")

    def __init__(self, name: str, *, capacity: int, counters: Counters) -> None:
        super().__init__(name, capacity=capacity, overflow="drop_newest", counters=counters)
        self._receiving = 0  # tasks in receive()
        self._received_on = False  # whether there has been one

    def begin_receiving(self) -> None:
        """Note that a task receives."""
        self._receiving += 1
        self._received_on = True

    def end_receiving(self) -> None:
        """Note that a task receives no more."""
        self._receiving -= 1
        self.last_used = trio.current_time()

    @property
    def is_used(self) -> bool:
        """Whether a task receives, or a message waits."""
        return bool(self._receiving or self.waited_for or self._waiting)

    @property
    def is_drained(self) -> bool:
        """Whether it can be forgotten at once, as it can be made again."""
        return not self.is_used and not self.groups and reply_mark(self.name) != ""

    def is_unused(self, *, expiry: float, group_expiry: float) -> bool:
        """Whether nobody has used it for so long; deletes expired messages."""
        self._forget_expired()
        kept = bool(self.groups) or (self._received_on and reply_mark(self.name) == "")
        limit = group_expiry if kept else min(expiry, group_expiry)
        return not self.is_used and self.last_used < trio.current_time() - limit

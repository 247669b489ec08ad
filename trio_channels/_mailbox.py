"""Mailboxes: a bounded memory channel with an overflow rule, filled without ever waiting.

The rules:

- :meth:`Mailbox.put` never blocks and never raises: a full mailbox costs only its owner.
- At most ``capacity`` messages wait. Beyond that the overflow rule decides, and everything lost is counted.
- Wherever messages are missing, the owner is given a :class:`~trio_channels.abc.Gap` in their place.
- An entry is shared by all mailboxes of a fan-out; each owner gets its own shallow copy of the message.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ._codec import Message
from .abc import Gap, Overflow

logger = logging.getLogger("trio_channels.mailbox")

#: Seconds between two log lines about one mailbox' losses.
LOG_INTERVAL = 60.0

_CONSEQUENCE: dict[Overflow, str] = {
    "close": "closing its owner",
    "drop_oldest": "dropping the oldest",
    "drop_newest": "dropping the newest",
}


@dataclass(slots=True)
class Counters:
    """What one layer has done so far; shared by its mailboxes."""

    sent: int = 0
    group_sent: int = 0
    delivered: int = 0
    dropped: int = 0
    expired: int = 0
    full: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """A snapshot of one mailbox: what waits, what it may hold, what it has lost."""

    waiting: int
    capacity: int
    dropped: int
    expired: int
    groups: int


class Envelope:
    """One message on its way, shared by every mailbox that it was put into."""

    __slots__ = ("expires_at", "message")

    def __init__(self, message: Message, expires_at: float) -> None:
        self.message = message
        self.expires_at = expires_at


class Mailbox:
    """The messages of one channel, on their way to one connection or subscriber.

    Args:
        name: the channel name.
        capacity: how many messages may wait.
        overflow: what happens beyond that; see :data:`~trio_channels.abc.Overflow`.
        counters: the layer's, counted up along with the mailbox' own.
        ring: called after each change that the owner should look at.

    Attributes:
        groups: the names of the groups it is a member of; the hub's to change.
        on_overflow: called when it overflows the first time with ``overflow="close"``; the owner's to set.
        overflowed: whether an ``overflow="close"`` mailbox was full; its owner must end.
        last_used: Trio time of the last use, for mailboxes that no block ends.
    """

    __slots__ = (
        "_counters",
        "_dropped",
        "_expired",
        "_expired_before_head",
        "_gaps",
        "_head",
        "_logged_at",
        "_lost_before_head",
        "_lost_behind_tail",
        "_receiver",
        "_ring",
        "_sender",
        "_waiting",
        "capacity",
        "groups",
        "last_used",
        "name",
        "on_overflow",
        "overflow",
        "overflowed",
    )

    def __init__(
        self,
        name: str,
        *,
        capacity: int,
        overflow: Overflow,
        counters: Counters,
        ring: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.overflowed = False
        self.on_overflow: Callable[[], None] | None = None
        self.groups: set[str] = set()
        self.last_used = trio.current_time()
        self._counters = counters
        self._ring = ring
        # The bound is ours, so that gaps, which cost their owner nothing, do not count against it.
        self._sender, self._receiver = trio.open_memory_channel[Envelope | Gap](math.inf)
        self._head: Envelope | Gap | None = None  # taken out of the channel, but not delivered yet
        self._waiting = 0
        self._gaps = 0
        self._expired_before_head = 0
        self._lost_before_head = 0
        self._lost_behind_tail = 0
        self._dropped = 0
        self._expired = 0
        self._logged_at = -math.inf

    def __repr__(self) -> str:
        mark = ", overflowed" if self.overflowed else ""
        return f"<Mailbox {self.name} {self._waiting}/{self.capacity} waiting, {self._dropped} dropped{mark}>"

    def statistics(self) -> MailboxStatistics:
        """An immutable snapshot."""
        return MailboxStatistics(self._waiting, self.capacity, self._dropped, self._expired, len(self.groups))

    # -- the layer's side -----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether a message put in now would be one too many, expired ones not counted."""
        return self._waiting >= self.capacity and not self._forget_expired()

    def put(self, envelope: Envelope) -> bool:
        """Put a message in, or apply the overflow rule. Returns whether the message was accepted."""
        if self._waiting >= self.capacity and not self._make_room():
            if self._ring is not None:
                self._ring()
            return False
        if self._lost_behind_tail:
            self._put_entry(Gap(self._lost_behind_tail, "overflow"))
            self._lost_behind_tail = 0
        # Counted before the channel may hand it to a waiting receiver, which counts it down.
        self._waiting += 1
        self._sender.send_nowait(envelope)
        if self._ring is not None:
            self._ring()
        return True

    def put_gap(self, gap: Gap) -> None:
        """Tell the owner that something is missing here."""
        self._put_entry(gap)
        if self._ring is not None:
            self._ring()

    def clear(self) -> int:
        """Forget what waits; returns how many messages that were."""
        forgotten = self._waiting
        while self._peek() is not None:
            self._take_head()
        self._lost_before_head = self._expired_before_head = self._lost_behind_tail = 0
        return forgotten

    def close(self) -> None:
        """End the mailbox: waiting receivers get :exc:`trio.EndOfChannel`."""
        self.clear()
        self._sender.close()

    def _put_entry(self, gap: Gap) -> None:
        self._gaps += 1
        self._sender.send_nowait(gap)

    def _make_room(self) -> bool:
        """Free a place for one message, or count the message that must go."""
        if self._forget_expired():
            return True
        self._dropped += 1
        self._counters.dropped += 1
        if self.overflow == "drop_oldest":
            self._drop_oldest()
        elif self.overflow == "drop_newest":
            self._lost_behind_tail += 1
        elif not self.overflowed:
            self.overflowed = True
            if self.on_overflow is not None:
                self.on_overflow()
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.warning(
                "mailbox %s is full (%d messages): %s; %d lost so far. Its owner is slower than its groups.",
                self.name,
                self.capacity,
                _CONSEQUENCE[self.overflow],
                self._dropped,
            )
        return self.overflow == "drop_oldest"

    def _forget_expired(self) -> bool:
        """Drop expired messages from the front; returns whether there is room now."""
        now = trio.current_time()
        while isinstance(head := self._peek(), Envelope) and head.expires_at <= now:
            self._take_head()
            self._expired += 1
            self._expired_before_head += 1
            self._counters.expired += 1
        return self._waiting < self.capacity

    def _drop_oldest(self) -> None:
        while isinstance(head := self._peek(), Gap):
            self._lost_before_head += head.lost or 0
            self._take_head()
        self._take_head()
        self._lost_before_head += 1

    # -- the owner's side -----------------------------------------------------------------------------------------

    def get_nowait(self) -> Message | Gap | None:
        """The next message or gap, or None where nothing waits."""
        if self._waiting or self._gaps:
            self._forget_expired()
        if self._expired_before_head:
            lost, self._expired_before_head = self._expired_before_head, 0
            return Gap(lost, "expired")
        if self._lost_before_head:
            lost, self._lost_before_head = self._lost_before_head, 0
            return Gap(lost, "overflow")
        entry = self._head
        if entry is not None:
            self._take_head()
            return self._open(entry)
        if self._lost_behind_tail:
            lost, self._lost_behind_tail = self._lost_behind_tail, 0
            return Gap(lost, "overflow")
        return None

    async def get(self) -> Message | Gap:
        """Wait for the next message or gap.

        Raises:
            trio.EndOfChannel: the mailbox was closed.

        Cancellation: loses nothing.
        """
        await trio.lowlevel.checkpoint()
        item = self.get_nowait()
        if item is None:
            entry = await self._receiver.receive()
            self._count_out(entry)
            item = self._open(entry)
        return item

    def _peek(self) -> Envelope | Gap | None:
        if self._head is None:
            try:
                self._head = self._receiver.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return None
        return self._head

    def _take_head(self) -> None:
        if self._head is not None:
            self._count_out(self._head)
            self._head = None

    def _count_out(self, entry: Envelope | Gap) -> None:
        if isinstance(entry, Gap):
            self._gaps -= 1
        else:
            self._waiting -= 1

    def _open(self, entry: Envelope | Gap) -> Message | Gap:
        if isinstance(entry, Gap):
            return entry
        self._counters.delivered += 1
        return entry.message.copy()

"""Mailboxes: bounded queues with an overflow rule; putting a message in never waits.

The rules:

- :meth:`Mailbox.put` never blocks and never raises: a full or closed mailbox affects only its owner.
- At most ``capacity`` messages wait. Beyond that the overflow rule decides, and each lost message is counted.
- With ``overflow="close"`` no message is accepted after the first loss: the owner reads a sequence without holes.
- Where messages are missing, the owner gets a :class:`~trio_channels.layers.base.Gap` in their place.
- All mailboxes of a fan-out share one envelope; each owner gets its own shallow copy of the message.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import outcome
import trio

from .._asgi.protocol import Message
from .._limits import OVERFLOW, Overflow
from ..exceptions import InvalidChannelLayerError
from .holes import Hole, merge
from .message import Counters, Envelope, Gap

logger = logging.getLogger("trio_channels.mailbox")

#: Seconds between two log lines about one mailbox' losses.
LOG_INTERVAL = 60.0

_CONSEQUENCE: dict[Overflow, str] = {
    "close": "closing its owner",
    "drop_oldest": "dropping the oldest",
    "drop_newest": "dropping the newest",
}


#: Those of every mailbox in which no message has waited, or is missing, and whose owner has not waited in get(). An
#: empty deque takes 600 bytes, an empty dict 64.
_NO_ENTRIES: deque[Envelope | Hole] = deque(maxlen=0)
_NO_HOLE: Hole = {}
_NO_RECEIVERS: dict[trio.lowlevel.Task, None] = {}


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """A snapshot of one mailbox: counts of messages, and of the groups it is a member of."""

    waiting: int
    capacity: int
    dropped: int
    expired: int
    groups: int


class Mailbox:
    """The messages of one channel, on their way to one connection or subscriber."""

    __slots__ = (
        "_closed",
        "_counters",
        "_dropped",
        "_entries",
        "_expired",
        "_hole",
        "_limit",
        "_logged_at",
        "_offer",
        "_receivers",
        "_ring",
        "_waiting",
        "broadcast",
        "capacity",
        "end",
        "failure",
        "groups",
        "last_used",
        "name",
        "on_failure",
        "on_overflow",
        "overflow",
        "overflowed",
        "presence",
        "subscriber",
    )

    def __init__(
        self,
        name: str,
        *,
        capacity: int,
        overflow: Overflow,
        counters: Counters,
        ring: Callable[[], None] | None = None,
        offer: Callable[[Envelope], bool] | None = None,
    ) -> None:
        OVERFLOW.require("the overflow rule of a mailbox", overflow, InvalidChannelLayerError)
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.overflowed = False  # with "close": whether its owner must end
        # The owner sets these: the exception for receivers of a closed mailbox, made from `failure`; callbacks.
        self.end: Callable[[str | None], Exception] = _end_of_channel
        self.on_overflow: Callable[[], None] | None = None  # at the first overflow with "close"
        self.on_failure: Callable[[], None] | None = None
        self.broadcast: Callable[[Envelope], bool] | None = None  # writes a broadcast to the client now, if it can
        self.failure: str | None = None  # why the layer has failed
        self.groups: set[str] = set()  # changed by the hub
        self.subscriber: trio.lowlevel.Task | None = None  # the task in whose block a subscription is
        self.presence: Any = None  # an Owner, see .presence.table: what it tracks and watches, if anything
        self.last_used = trio.current_time()  # of ownerless mailboxes
        self._counters = counters
        # `ring` is called after each change that the owner must handle, but not for items handed directly to a task in
        # get(). `offer` is called with a message that comes while the mailbox is empty; True: the owner has taken it.
        self._ring = ring
        self._offer = offer
        # Holes stand in the queue where messages are missing. Adjacent holes are merged, so that there is at most one
        # hole more than there are messages. `_hole` stands before the first message.
        self._entries: deque[Envelope | Hole] = _NO_ENTRIES
        self._hole = _NO_HOLE
        self._waiting = 0  # envelopes in the queue
        self._limit = capacity  # of them: the capacity, and those from a group's history, which do not count
        self._receivers = _NO_RECEIVERS  # longest wait first; empty unless the queue is empty
        self._closed = False
        self._dropped = 0
        self._expired = 0
        self._logged_at = -math.inf

    def __repr__(self) -> str:
        mark = ", overflowed" if self.overflowed else ""
        return f"<Mailbox {self.name} {self._waiting}/{self.capacity} waiting, {self._dropped} dropped{mark}>"

    def statistics(self) -> MailboxStatistics:
        """An immutable snapshot."""
        return MailboxStatistics(self._waiting, self.capacity, self._dropped, self._expired, len(self.groups))

    @property
    def full(self) -> bool:
        """Whether there is no room for another message. Expired messages do not count."""
        return self.overflowed or (self._waiting >= self._limit and not self._forget_expired())

    @property
    def target(self) -> Mailbox:
        """The mailbox that gets what is put in now; see :class:`~trio_channels.layers.joining.Joining`."""
        return self

    @property
    def waited_for(self) -> bool:
        """Whether a task is waiting in :meth:`get`."""
        return bool(self._receivers)

    def put(self, envelope: Envelope) -> bool:
        """Put a message in, or apply the overflow rule. Returns whether the message was accepted."""
        if self._receivers and not self.overflowed:  # the queue is empty then
            self._wake(envelope)
            self._counters.delivered += 1
            return True
        if self._offer is not None and not self._entries and not self._hole and self._offer(envelope):
            self._counters.delivered += 1
            return True
        if self._closed:
            return False
        accepted = not (self._waiting >= self._limit or self.overflowed) or self._make_room()
        if accepted:
            self._waiting += 1
            self._counters.waited += 1
            self._append(envelope)
        if self._ring is not None:
            self._ring()
        return accepted

    def replay(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages of a group's history in. They do not count against the capacity: the history bounds them."""
        for envelope in envelopes:
            if self._receivers:
                self._wake(envelope)
                self._counters.delivered += 1
            elif not self._closed and not self.overflowed:
                self._waiting += 1
                self._limit += 1
                self._append(envelope)
        if self._ring is not None:
            self._ring()

    def _append(self, entry: Envelope | Hole) -> None:
        if self._entries is _NO_ENTRIES:
            self._entries = deque()
        self._entries.append(entry)

    def put_gap(self, gap: Gap) -> None:
        """Tell the owner that messages are missing here."""
        if self._receivers:
            self._wake(outcome.Value(gap))
            return
        self._add_hole(gap.lost, gap.reason)
        if self._ring is not None:
            self._ring()

    def clear(self) -> int:
        """Delete the waiting messages, and return their number. Holes are kept."""
        deleted, self._waiting, self._limit = self._waiting, 0, self.capacity
        for entry in self._entries:
            if not isinstance(entry, Envelope):
                merge(self._front(), entry)
        self._entries.clear()
        return deleted

    def close(self) -> None:
        """End the mailbox: its receivers get the exception made by :attr:`end`. Idempotent."""
        self._closed = True
        self._offer = None
        self.clear()
        self._hole = _NO_HOLE
        while self._receivers:
            self._wake(outcome.Error(self.end(self.failure)))

    def fail(self, reason: str) -> None:
        """End the mailbox because its layer has failed, and tell its owner."""
        self.failure = reason
        self.close()
        if self.on_failure is not None:
            self.on_failure()
        if self._ring is not None:
            self._ring()

    def _add_hole(self, lost: int | None, reason: str) -> None:
        entries = self._entries
        if not entries:
            hole = self._front()
        elif isinstance(last := entries[-1], Envelope):
            hole = {}
            self._append(hole)
        else:
            hole = last
        merge(hole, {reason: lost})

    def _front(self) -> Hole:
        """The hole before the first message, for more of it."""
        if self._hole is _NO_HOLE:
            self._hole = {}
        return self._hole

    def _make_room(self) -> bool:
        """Make room for one message by the overflow rule; returns whether there is room now."""
        if not self.overflowed and self._forget_expired():
            return True
        before = self._dropped
        if self.overflow == "drop_oldest":
            self._drop_first()
            while self._waiting >= self._limit and not self._forget_expired():
                self._drop_first()  # the one before was from a group's history, and made no room
        else:
            self._dropped += 1
            if self.overflow == "drop_newest":
                self._add_hole(1, "overflow")
            elif not self.overflowed:
                self.overflowed = True
                self._offer = None
                if self.on_overflow is not None:
                    self.on_overflow()
        self._counters.dropped += self._dropped - before
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.warning(
                "mailbox %s is full (%d messages): %s; %d lost so far. Its owner is slower than its senders",
                self.name,
                self.capacity,
                _CONSEQUENCE[self.overflow],
                self._dropped,
            )
        return self.overflow == "drop_oldest"

    def _drop_first(self) -> None:
        self._remove_first()
        self._dropped += 1
        merge(self._front(), {"overflow": 1})

    def _remove_first(self) -> Envelope:
        """Take the first entry out; the caller has removed the holes before it."""
        envelope: Envelope = self._entries.popleft()  # type: ignore[assignment]
        self._waiting -= 1
        self._limit -= envelope.replayed
        return envelope

    def _forget_expired(self) -> bool:
        """Merge holes and expired messages at the front into `_hole`; returns whether there is room now."""
        now = trio.current_time()
        entries = self._entries
        while entries:
            head = entries[0]
            if not isinstance(head, Envelope):
                merge(self._front(), head)
                entries.popleft()
            elif head.expires_at <= now:
                self._remove_first()
                self._expired += 1
                self._counters.expired += 1
                merge(self._front(), {"expired": 1})
            else:
                break
        return self._waiting < self._limit

    def get_nowait(self) -> Message | Gap | None:
        """The next message or gap, or None if the mailbox is empty."""
        if self._entries:
            self._forget_expired()
        if self._hole:
            reason = next(iter(self._hole))
            return Gap(self._hole.pop(reason), reason)
        if not self._entries:
            return None
        self._counters.delivered += 1
        return self._remove_first().unwrap()

    def get(self) -> Awaitable[Message | Gap]:
        """Wait for the next message or gap. Several tasks may wait; they are served in the order in which they came."""
        return self

    def __await__(self) -> Generator[Any, Any, Message | Gap]:
        # `get` is not a coroutine function: that would be one more coroutine to resume per message. The mailbox itself
        # is awaited, so that nothing happens before: only then is the receiving task known.
        if self._entries or self._hole or self._closed:
            return self._get_waiting().__await__()
        return self._wait().__await__()

    async def _get_waiting(self) -> Message | Gap:
        await trio.lowlevel.checkpoint()
        item = self.get_nowait()
        if item is not None:
            return item
        if self._closed:
            raise self.end(self.failure)
        return await self._wait()

    def _wait(self) -> Coroutine[Any, Any, Message | Gap]:
        task = trio.lowlevel.current_task()
        if self._receivers is _NO_RECEIVERS:
            self._receivers = {}
        receivers = self._receivers
        receivers[task] = None
        if len(receivers) == 1:  # the usual case, without a closure; the task stays first until it is woken or aborted
            abort = self._abort_first
        else:

            def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
                del receivers[task]
                return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105  # by the caller

    def _abort_first(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        del self._receivers[next(iter(self._receivers))]
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self, result: outcome.Outcome[Message | Gap]) -> None:
        task = next(iter(self._receivers))
        del self._receivers[task]
        trio.lowlevel.reschedule(task, result)


def _end_of_channel(_failure: str | None) -> Exception:
    return trio.EndOfChannel()

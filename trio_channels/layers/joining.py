"""A member that is joining a group with history: its live messages wait until the missed ones are known.

The rules:

- Until :meth:`Joining.begin` live messages and gaps are held, in order. If there are more than the mailbox may hold,
  all are dropped, and :attr:`Joining.skipped` is the last of them.
- Then the missed messages come first, and the held ones behind them. What was sent before the place where the
  membership begins is a double, or older than the membership, and is dropped.
- The first live message behind that place ends it: the mailbox itself becomes the member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .history import NOT_RECOVERED, Recovery
from .mailbox import Mailbox
from .message import Counters, Envelope, Gap, Place


class Joining(Mailbox):
    """Stands in a group's table for a mailbox that is joining it.

    Args:
        mailbox: the mailbox.
        settle: makes the mailbox itself the member, if this one still is.

    Attributes:
        skipped: the last live message that was dropped because too many came; the membership can only begin behind it.
    """

    __slots__ = ("_begun", "_floor", "_held", "_mailbox", "_settle", "skipped")

    def __init__(self, mailbox: Mailbox, settle: Callable[[Joining, Mailbox], None]) -> None:
        super().__init__(mailbox.name, capacity=mailbox.capacity, overflow=mailbox.overflow, counters=Counters())
        self.groups = mailbox.groups  # those that leave a group change it
        self._mailbox = mailbox
        self._settle = settle
        self._held: list[Envelope | Gap] = []
        self.skipped: Envelope | None = None
        self._floor: Place | None = None
        self._begun = False

    @property
    def target(self) -> Mailbox:
        """See :attr:`Mailbox.target`."""
        return self._mailbox if self._begun else self

    def put(self, envelope: Envelope) -> bool:
        """Hold a live message, drop it, or pass it on."""
        if not self._begun:
            self._hold(envelope)
            return True
        if is_behind(self._floor, envelope.place):
            self._settle(self, self._mailbox)
            return self._mailbox.put(envelope)
        return True

    def _hold(self, item: Envelope | Gap) -> None:
        if len(self._held) >= self.capacity:
            self.skipped = next((it for it in reversed(self._held) if isinstance(it, Envelope)), self.skipped)
            self._held.clear()
        self._held.append(item)

    def put_gap(self, gap: Gap) -> None:
        """Hold a gap, or pass it on."""
        if self._begun:
            self._mailbox.put_gap(gap)
        else:
            self._hold(gap)

    def begin(self, floor: Place | None, missed: Iterable[Envelope], gap: Gap | None) -> None:
        """Give the mailbox what it missed, and what was held.

        Args:
            floor: the place of the last message that the member has, or has no right to.
            missed: messages before it.
            gap: stands where messages are missing that cannot be had.
        """
        self._begun = True
        self._floor = floor
        if gap is not None:
            self._mailbox.put_gap(gap)
        self._mailbox.replay(missed)
        held, self._held = self._held, []
        for item in held:
            if isinstance(item, Gap):
                self._mailbox.put_gap(item)
            else:
                self.put(item)


def is_behind(floor: Place | None, place: Place | None) -> bool:
    """Whether a message comes after a place. True if that is not known: they are not of one history."""
    return floor is None or place is None or place[0] != floor[0] or place[1:] > floor[1:]


def outcome_of_join(counters: Counters, since: object, recovery: Recovery) -> Gap | None:
    """Count the outcome of a join with a position; returns the gap that its member gets."""
    if since is None:
        return None
    if recovery.recovered:
        counters.recovered += 1
        return None
    counters.not_recovered += 1
    return Gap(None, NOT_RECOVERED)

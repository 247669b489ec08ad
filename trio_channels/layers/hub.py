"""The hub: one layer's tables of mailboxes and groups in one Trio run, through which every layer delivers.

The tables need no lock: they are used in one Trio run, without an await between a look-up and its use. Delivery is
synchronous, except to large groups, which are sent to in parts. Meanwhile one sender has the *turn*, and the
deliveries of all others wait for its end.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import outcome
import trio

from .._limits import CAPACITY
from .joining import Joining
from .mailbox import Mailbox
from .message import Counters, Envelope, Gap
from .names import reply_mark
from .ownerless import OwnerlessMailbox

if TYPE_CHECKING:
    from .presence.table import PresenceTable

T = TypeVar("T")

#: Members that are sent to at a time. The data of a thousand members does not fit into a processor's cache. With parts,
#: each part handles its message before the next one gets it, which saves a third of the time. Other tasks wait for one
#: part, and not for a thousand handlers.
PART = 64

#: Most seconds between two sweeps for unused ownerless mailboxes.
SWEEP_INTERVAL = 60.0

_marks = itertools.count(1)


class _Opened:
    """See :meth:`Hub.opened`. A generator would take four times the memory, for each connection."""

    __slots__ = ("_hub", "_mailbox")

    def __init__(self, hub: Hub, mailbox: Mailbox) -> None:
        self._hub = hub
        self._mailbox = mailbox

    def __enter__(self) -> Mailbox:
        return self._hub.open(self._mailbox)

    def __exit__(self, *_exception: object) -> None:
        self._hub.close(self._mailbox)


class Hub:
    """The mailboxes and groups of one layer in one Trio run."""

    def __init__(self, on_change: Callable[[str], None] | None = None) -> None:
        self._on_change = on_change  # called with the name of a group that got its first member, or lost its last
        self.mailboxes: dict[str, Mailbox] = {}
        self.groups: dict[str, dict[str, Mailbox]] = {}  # only groups with members
        self.counters = Counters()
        self.token = trio.lowlevel.current_trio_token()
        self.process = os.getpid()
        self.mark = f"{next(_marks):x}"  # in the names of channels of new_channel()
        self.capacity_of: Callable[[str], int] = lambda _channel: CAPACITY
        self._swept_at = trio.current_time()
        self.presence: PresenceTable | None = None  # made on the first use
        self._turn = trio.Lock()
        self._afterwards: deque[Callable[[], object]] = deque()

    def __repr__(self) -> str:
        return f"<Hub {len(self.mailboxes)} mailboxes, {len(self.groups)} groups>"

    def open(self, mailbox: Mailbox) -> Mailbox:
        """Make a mailbox reachable under its name."""
        self.mailboxes[mailbox.name] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """End a mailbox and its memberships; the cost grows with its own memberships only."""
        for group in list(mailbox.groups):
            self.leave(group, mailbox.name)
        if mailbox.presence is not None:
            mailbox.presence.end()
            mailbox.presence = None  # it refers back to the mailbox
        self.mailboxes.pop(mailbox.name, None)
        mailbox.close()

    def opened(self, mailbox: Mailbox) -> AbstractContextManager[Mailbox]:
        """A mailbox for the length of a ``with`` block."""
        return _Opened(self, mailbox)

    def join(self, group: str, mailbox: Mailbox) -> None:
        """Make a mailbox a member."""
        members = self.groups.get(group)
        if members is None:
            members = self.groups[group] = {}
            if self._on_change is not None:
                self._on_change(group)
        members[mailbox.name] = mailbox
        mailbox.groups.add(group)

    def join_later(self, group: str, mailbox: Mailbox) -> Joining:
        """Make a mailbox a member that gets nothing before :meth:`Joining.begin`; it must not be one already."""
        joining = Joining(mailbox, settle=partial(self._settle, group))
        self.join(group, joining)
        return joining

    def has_joining(self, group: str, joining: Joining) -> bool:
        """Whether a mailbox is still joining a group."""
        return self.groups.get(group, {}).get(joining.name) is joining

    def _settle(self, group: str, joining: Joining, mailbox: Mailbox) -> None:
        if self.has_joining(group, joining):
            self.groups[group][mailbox.name] = mailbox

    def is_member(self, group: str, channel: str) -> bool:
        """Whether a channel is in a group, or is joining it."""
        return channel in self.groups.get(group, ())

    def leave(self, group: str, channel: str) -> None:
        """End a membership; does nothing where there is none."""
        members = self.groups.get(group)
        if members is None or channel not in members:
            return
        members.pop(channel).groups.discard(group)
        if not members:
            del self.groups[group]
            if self._on_change is not None:
                self._on_change(group)

    def fan_out(self, group: str, envelope: Envelope) -> None:
        """Put one envelope into each member's mailbox."""
        members = self.groups.get(group)
        if members is not None:
            put_into(_without(envelope.exclude, members), envelope)

    async def fan_out_in_parts(self, group: str, envelope: Envelope) -> None:
        """As :meth:`fan_out`, but other tasks run after every :data:`PART` members. Call it inside :meth:`turn`."""
        # Members that leave meanwhile are skipped; new ones are not added. Not cancellable: all members get it. It ends
        # with the last member: those who join the empty group may have missed the messages behind this one.
        members = self.groups.get(group, {})
        mailboxes = list(_without(envelope.exclude, members))
        for start in range(0, len(mailboxes), PART):
            part = mailboxes[start : start + PART]
            put_into([one for one in part if members.get(one.name) is one or _has_joined(members, one)], envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def has_turn(self) -> bool:
        """Whether a task has the :meth:`turn`, so that no other one delivers."""
        return self._turn.locked()

    def is_large(self, group: str) -> bool:
        """Whether a group is sent to in parts."""
        return len(self.groups.get(group, ())) > PART

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the right to deliver in this run, for the length of the block."""
        # So all members see messages in one order, and no answer overtakes its question.
        async with self._turn:
            try:
                yield
            finally:
                while self._afterwards:
                    self._afterwards.popleft()()

    async def after_turn(self, function: Callable[[], T]) -> T:
        """Call a delivering function at the end of the current turn, and wait for its outcome."""
        # All functions that wait are called together, and none takes a turn of its own: with a turn each, tasks that
        # send without pause would wait for one another for ever.
        task = trio.lowlevel.current_task()

        def call() -> None:
            trio.lowlevel.reschedule(task, outcome.capture(function))

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._afterwards.remove(call)
            return trio.lowlevel.Abort.SUCCEEDED

        self._afterwards.append(call)
        result: T = await trio.lowlevel.wait_task_rescheduled(give_up)
        return result

    def in_turn(self, function: Callable[[], object]) -> None:
        """Call a function that delivers, or must not overtake a delivery: now, or at the end of the current turn."""
        if self._turn.locked():
            self._afterwards.append(function)
        else:
            function()

    def flush(self) -> None:
        """Delete messages and memberships; an owner that had either gets a :class:`Gap`."""
        flushed = list(self.groups)
        for members in self.groups.values():
            members.clear()  # a delivery in parts may be under way to them
        self.groups.clear()
        if self._on_change is not None:
            for group in flushed:
                self._on_change(group)
        for mailbox in self.mailboxes.values():
            forgotten = mailbox.clear()
            if forgotten or mailbox.groups:
                mailbox.put_gap(Gap(forgotten, "flushed"))
            mailbox.groups.clear()

    def fail(self, reason: str) -> None:
        """End every mailbox because the layer is broken."""
        for mailbox in list(self.mailboxes.values()):
            if isinstance(mailbox, OwnerlessMailbox):
                self.close(mailbox)
            else:  # its owner closes it
                mailbox.fail(reason)

    def ownerless(self, name: str, capacity: int) -> Mailbox:
        """Return the mailbox of that name, or make an :class:`OwnerlessMailbox`."""
        return self.mailboxes.get(name) or self.open(OwnerlessMailbox(name, capacity=capacity, counters=self.counters))

    def find(self, channel: str) -> Mailbox | None:
        """The mailbox of a channel; one of this hub's ``new_channel`` is made again if it was forgotten."""
        mailbox = self.mailboxes.get(channel)
        if mailbox is None and reply_mark(channel) == self.mark:
            mailbox = self.ownerless(channel, self.capacity_of(channel))
        return mailbox

    @contextmanager
    def receiving(self, mailbox: Mailbox) -> Iterator[None]:
        """Keep a mailbox while a task receives; afterwards forget one that can be made again."""
        if not isinstance(mailbox, OwnerlessMailbox):
            yield
            return
        mailbox.begin_receiving()
        try:
            yield
        finally:
            mailbox.end_receiving()
            if mailbox.is_drained and self.mailboxes.get(mailbox.name) is mailbox:
                self.close(mailbox)

    def forget_unused(self, *, expiry: float, group_expiry: float) -> None:
        """Delete expired messages of ownerless mailboxes, and close those that nobody uses; at most once a minute."""
        now = trio.current_time()
        if now >= self._swept_at + min(SWEEP_INTERVAL, expiry):
            self._swept_at = now
            for mailbox in self._all_ownerless():
                if mailbox.is_unused(expiry=expiry, group_expiry=group_expiry):
                    self.close(mailbox)

    def close_ownerless(self) -> None:
        """Close every ownerless mailbox; the others end with their owners."""
        for mailbox in self._all_ownerless():
            self.close(mailbox)

    def _all_ownerless(self) -> list[OwnerlessMailbox]:
        return [mailbox for mailbox in self.mailboxes.values() if isinstance(mailbox, OwnerlessMailbox)]


def _has_joined(members: dict[str, Mailbox], mailbox: Mailbox) -> bool:
    """Whether a mailbox that was joining has become a member meanwhile."""
    member = members.get(mailbox.name)
    return member is not None and member is mailbox.target


def _without(names: frozenset[str], members: dict[str, Mailbox]) -> Iterable[Mailbox]:
    if not names:
        return members.values()
    return [mailbox for name, mailbox in members.items() if name not in names]


def put_into(mailboxes: Iterable[Mailbox], envelope: Envelope) -> None:
    """Put a message into each mailbox. An owner for whom nothing waits may write a broadcast to its client at once."""
    if envelope.frames is None:
        for mailbox in mailboxes:
            mailbox.put(envelope)
        return
    for mailbox in mailboxes:  # without a call for each: there may be thousands
        broadcast = mailbox.broadcast
        waiting = mailbox._entries or mailbox._hole or mailbox._closed or mailbox.overflowed
        if broadcast is None or waiting or not broadcast(envelope):
            mailbox.put(envelope)
        else:
            mailbox._counters.delivered += 1

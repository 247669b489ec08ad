"""Who is a member of what, in one process and one Trio run: the tables that every layer delivers through.

Everything runs in one Trio run, with no await between a look-up and its use, so that the tables need no lock.
Delivering is synchronous, but for groups that are sent to in parts: meanwhile one sender has the *turn*, and all that
others want delivered comes after it.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import outcome
import trio

from .mailbox import Mailbox
from .message import Counters, Envelope, Gap

#: Members that are sent to at a time. What a thousand members touch, each twice, does not fit into a processor's cache:
#: in parts, each part has dealt with its message before the next one gets it, which takes a third off the whole. And
#: the tasks beside them wait for a part, not for a thousand handlers.
PART = 64

#: Seconds between two looks for ownerless mailboxes that nobody uses.
SWEEP_INTERVAL = 60.0


class Hub:
    """The mailboxes and groups of one layer in one Trio run.

    Args:
        on_change: called with a group that got its first member, or lost its last.

    Attributes:
        mailboxes: channel name -> mailbox.
        groups: group name -> channel name -> mailbox; a group without members is not in it.
        counters: what the layer has done in this run.
        token: the entry queue of the run.
        process: the run's process.
    """

    def __init__(self, on_change: Callable[[str], None] | None = None) -> None:
        self._on_change = on_change
        self.mailboxes: dict[str, Mailbox] = {}
        self.groups: dict[str, dict[str, Mailbox]] = {}
        self.counters = Counters()
        self.token = trio.lowlevel.current_trio_token()
        self.process = os.getpid()
        self._sweep_at = trio.current_time() + SWEEP_INTERVAL
        self._turn = trio.Lock()
        self._afterwards: deque[Callable[[], object]] = deque()

    def __repr__(self) -> str:
        return f"<Hub {len(self.mailboxes)} mailboxes, {len(self.groups)} groups>"

    def open(self, mailbox: Mailbox) -> Mailbox:
        """Make a mailbox reachable under its name."""
        self.mailboxes[mailbox.name] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """End a mailbox and its memberships; costs what its own memberships cost."""
        for group in list(mailbox.groups):
            self.leave(group, mailbox.name)
        self.mailboxes.pop(mailbox.name, None)
        mailbox.close()

    @contextmanager
    def opened(self, mailbox: Mailbox) -> Iterator[Mailbox]:
        """A mailbox for the length of a ``with`` block."""
        try:
            yield self.open(mailbox)
        finally:
            self.close(mailbox)

    def join(self, group: str, mailbox: Mailbox) -> None:
        """Make a mailbox a member."""
        members = self.groups.get(group)
        if members is None:
            members = self.groups[group] = {}
            if self._on_change is not None:
                self._on_change(group)
        members[mailbox.name] = mailbox
        mailbox.groups.add(group)

    def leave(self, group: str, channel: str) -> None:
        """End a membership; nothing happens where there is none."""
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
            for mailbox in members.values():
                mailbox.put(envelope)

    async def fan_out_in_parts(self, group: str, envelope: Envelope) -> None:
        """As :meth:`fan_out`, with a round of the scheduler after every :data:`PART` members. To be called in one's
        :meth:`turn`. Who leaves meanwhile gets nothing any more, nor does who has not been a member before.

        Cancellation: none; it takes as long as the members' handlers take to their first waits.
        """
        names = list(self.groups.get(group, ()))
        for start in range(0, len(names), PART):
            members = self.groups.get(group, {})
            for name in names[start : start + PART]:
                mailbox = members.get(name)
                if mailbox is not None:
                    mailbox.put(envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def has_turn(self) -> bool:
        """Whether somebody has a :meth:`turn` now, so that nobody else delivers."""
        return self._turn.locked()

    def is_large(self, group: str) -> bool:
        """Whether a group is to be sent to in parts."""
        return len(self.groups.get(group, ())) > PART

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """For the length of the block, have nobody else deliver in this run: every member sees one order, and nobody an
        answer before the question.

        Cancellation: ends the wait for the others.
        """
        async with self._turn:
            try:
                yield
            finally:
                while self._afterwards:
                    self._afterwards.popleft()()

    async def after_turn(self, function: Callable[[], object]) -> None:
        """Have a function that delivers called at the end of the turn that somebody has now; raises what it does.

        All who wait so are served at once, and take no turn of their own: one each, one after the other, would let
        those who send all the time wait for each other for ever.

        Cancellation: atomic; a cancelled call has not called it.
        """
        task = trio.lowlevel.current_task()

        def call() -> None:
            trio.lowlevel.reschedule(task, outcome.capture(function))

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._afterwards.remove(call)
            return trio.lowlevel.Abort.SUCCEEDED

        self._afterwards.append(call)
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def in_turn(self, function: Callable[[], object]) -> None:
        """Call a function that delivers, or that must not overtake one; after the turn that somebody has now."""
        if self._turn.locked():
            self._afterwards.append(function)
        else:
            function()

    def flush(self) -> None:
        """Forget messages and memberships; tell each owner that had either."""
        flushed = list(self.groups)
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
        """End every mailbox: the layer is broken."""
        for mailbox in list(self.mailboxes.values()):
            if isinstance(mailbox, OwnerlessMailbox):
                self.close(mailbox)
            else:  # its owner closes it
                mailbox.fail(reason)

    def ownerless(self, name: str, capacity: int) -> Mailbox:
        """The mailbox of that name, made if there is none; see :class:`OwnerlessMailbox`."""
        return self.mailboxes.get(name) or self.open(
            OwnerlessMailbox(name, capacity=capacity, overflow="drop_newest", counters=self.counters)
        )

    def forget_unused(self, longer_than: float) -> None:
        """Drop the ownerless mailboxes that nobody has used for `longer_than` seconds; looks once a minute."""
        now = trio.current_time()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL
            for mailbox in list(self.mailboxes.values()):
                if (
                    isinstance(mailbox, OwnerlessMailbox)
                    and not mailbox.waited_for
                    and mailbox.last_used < now - longer_than
                ):
                    self.close(mailbox)

    def close_ownerless(self) -> None:
        """Drop every ownerless mailbox; the others end with their owners."""
        for mailbox in list(self.mailboxes.values()):
            if isinstance(mailbox, OwnerlessMailbox):
                self.close(mailbox)


class OwnerlessMailbox(Mailbox):
    """A mailbox made by ``new_channel``, or for a named channel: no block ends it, so disuse does."""

    __slots__ = ()


def random_channel_name(prefix: str) -> str:
    """A process-local channel name that nobody else has: 96 random bits."""
    return f"{prefix}!{secrets.token_hex(12)}"

"""Delivers the entries of an inbox: to members of groups, to single channels, or to the count of lost messages."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from ..hub import Hub
from ..identities import Identities
from ..mailbox import Mailbox
from ..message import Envelope, Gap
from .codec import CHANNEL, GROUP, MEMBERSHIP, PROBE, EntryCodec, Payload, UndecodableEntry
from .positions import mark

#: Numbers remembered for each sender: as many as a pipeline has under way, as all of them can come again. A window
#: rather than the highest number: after an error reply a command comes again behind later ones.
WIDTH = 1_024
#: Seconds after which a silent sender is forgotten. Commands come again only while their callers wait.
MEMORY = 300.0


@dataclass(slots=True)
class _SlidingWindow:
    """The latest numbers of one sender."""

    seen: set[bytes] = field(default_factory=set)
    order: deque[bytes] = field(default_factory=deque)
    last_heard: float = 0.0


class DuplicateFilter:
    """Recognises messages that come twice: a sliding window of tokens for each sender."""

    # A command whose answer was lost is sent again, though Redis may have carried it out. Its token, the sender and a
    # number, is the same both times.

    def __init__(self) -> None:
        self._senders: OrderedDict[bytes, _SlidingWindow] = OrderedDict()
        self.suppressed = 0

    def __repr__(self) -> str:
        return f"<DuplicateFilter of {len(self._senders)} senders, {self.suppressed} suppressed>"

    def is_duplicate(self, token: bytes, now: float) -> bool:
        """Whether the token is among the last ``WIDTH`` of its sender; remembers it. `now` must not decrease."""
        sender, _, number = token.rpartition(b"-")
        window = self._senders.get(sender)
        if window is None:
            self._forget_silent(now - MEMORY)
            window = self._senders[sender] = _SlidingWindow()
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


logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds between two log lines about skipped entries.
LOG_INTERVAL = 60.0
#: A larger step of Redis' clock against Trio's, in seconds, means that somebody has set it.
CLOCK_STEP = 5.0


class Delivery:
    """Delivers the entries of one inbox."""

    def __init__(
        self,
        *,
        name: str,
        hub: Hub,
        codec: EntryCodec,
        mine: Callable[[str], bool],
        is_current: Callable[[str, bytes], bool],
        is_home: bool,
        expiry: float,
        on_probe: Callable[[int], None],
        on_flush: Callable[[], None],
        on_membership: Callable[[Payload], None],
    ) -> None:
        self.gaps = 0
        self.undecodable = 0
        self._name = name
        self._hub = hub
        self._codec = codec
        self._mine = mine
        self._is_current = is_current
        self._is_home = is_home  # whether messages to single channels of this process come through this shard
        self._expiry = expiry
        self._on_probe = on_probe
        self._on_flush = on_flush
        self._on_membership = on_membership
        self.duplicates = DuplicateFilter()
        self._identities = Identities()
        # Redis' time minus Trio's; for entries older than _clock_set_at the offset before Redis' clock was set.
        self._clock_offset = 0.0
        self._clock_set_at, self._old_clock = 0.0, 0.0
        self._lost = 0
        self._logged_at = -math.inf

    def __repr__(self) -> str:
        return f"<Delivery of {self._name}, {self.gaps} gaps, {self.undecodable} undecodable>"

    def see_time(self, time: list[bytes]) -> None:
        """Learn Redis' clock: the ids of entries are times on it, so they are compared with no other clock."""
        seconds, microseconds = time
        now = int(seconds) + int(microseconds) / 1e6
        offset = now - trio.current_time()
        if offset - self._clock_offset > CLOCK_STEP:
            # It was set forward: older entries are not as old as their ids say now.
            self._old_clock = self._clock_offset
            self._clock_set_at = (now - (offset - self._clock_offset) / 2) * 1000
        self._clock_offset = offset

    def written_at(self, entry_id: bytes) -> float:
        """The Trio time at which an entry was written."""
        milliseconds = int(entry_id.partition(b"-")[0])
        offset = self._clock_offset if milliseconds >= self._clock_set_at else self._old_clock
        return milliseconds / 1000 - offset

    def deliver(self, entry_id: bytes, fields: list[bytes] | None, already: int = 0) -> Awaitable[None] | None:
        """Deliver an entry; skip and count a malformed one. Await the result, if any, before the next entry."""
        # Usually None: only large groups, and waits for another shard's delivery to one, need a task switch. `already`
        # entries were delivered and are still in the inbox: a flush counts them as lost.
        try:
            content = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
            if b"l" in content:
                flushed = b"f" in content
                self._pass_mark(int(content[b"l"]), already if flushed else 0, flushed=flushed)
                return None
            payload: Payload = self._codec.unpack(content[b"b"])
            if payload.kind not in (GROUP, CHANNEL, PROBE, MEMBERSHIP):
                raise UndecodableEntry(f"an entry of an unknown kind, {payload.kind}")
            probe = int(payload.name) if payload.kind == PROBE else 0
            generation = content[b"g"] if payload.kind == GROUP else b""
            # Before the token is remembered: the message may come again, to the next membership.
            if payload.kind == GROUP and not self._is_current(payload.name, generation):
                return None
            # Only after decoding: a forged entry must not make a real one with the same token a duplicate.
            if self.duplicates.is_duplicate(content[b"t"], trio.current_time()):
                return None
            if payload.kind == MEMBERSHIP:
                self._on_membership(payload)
                return None
            if payload.identity:
                if payload.identity in self._identities:
                    return None
                self._identities.add(payload.identity)
            kept = content.get(b"h")
            place = None if kept is None else mark(payload.message, payload.name, kept.decode(), content[b"t"])
        except (UndecodableEntry, KeyError, ValueError, TypeError) as error:
            self.count_undecodable(entry_id.decode(), error)
            return None
        if payload.kind == PROBE:
            self._on_probe(probe)
            return None
        envelope = Envelope(payload.message, self.written_at(entry_id) + self._expiry, payload.exclude, place)
        if payload.kind == GROUP and self._hub.is_large(payload.name):
            return self._to_large_group(payload.name, generation, envelope)
        put = partial(self._to_group, generation=generation) if payload.kind == GROUP else self._to_channel
        if self._hub.has_turn:
            return self._after_turn(partial(put, payload.name, envelope))
        put(payload.name, envelope)
        return None

    def _to_group(self, group: str, envelope: Envelope, generation: bytes) -> None:
        if self._is_current(group, generation):  # it may have changed during another's turn
            self._hub.fan_out(group, envelope)

    def _to_channel(self, channel: str, envelope: Envelope) -> None:
        mailbox = self._hub.find(channel)
        if mailbox is not None:
            mailbox.put(envelope)
        else:
            self._hub.counters.gone += 1

    # Shielded: an entry that was read is not read again.

    async def _to_large_group(self, group: str, generation: bytes, envelope: Envelope) -> None:
        with trio.CancelScope(shield=True):
            async with self._hub.turn():
                if self._is_current(group, generation):
                    await self._hub.fan_out_in_parts(group, envelope)

    async def _after_turn(self, put: Callable[[], object]) -> None:
        with trio.CancelScope(shield=True):
            await self._hub.after_turn(put)

    def count_undecodable(self, where: str, error: Exception) -> None:
        """Count a skipped entry, and log it, at most once a minute."""
        self.undecodable += 1
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.error(
                "%s: entry %s is skipped: %s (%d so far; logged once a minute)",
                self._name,
                where,
                error,
                self.undecodable,
            )

    def forget_marks(self, refused: int) -> None:
        """Set how many messages the inbox has refused so far: the next :meth:`report_loss` covers them."""
        self._lost = refused

    def report_loss(self, reason: str) -> None:
        """Report that an unknown number of messages may be missing."""
        # Messages to single channels may be missing too.
        concerned = self._members()
        self._report(None, reason, concerned.union(self._hub.mailboxes.values()) if self._is_home else concerned)

    def report_forgotten(self, groups: list[str]) -> None:
        """Report to the members of groups that Redis had forgotten this process there."""
        concerned = {member.target for group in groups for member in self._hub.groups.get(group, {}).values()}
        self._report(None, "Redis had forgotten a group", concerned)

    def _pass_mark(self, lost: int, already: int, *, flushed: bool) -> None:
        """Report the messages refused or flushed at this place; `lost` counts all of the inbox so far."""
        more, self._lost = lost - already - self._lost, max(lost, self._lost)
        if more > 0 or flushed:
            self._report(max(more, 0), "flushed" if flushed else "the inbox was full", self._members())
        if flushed:
            self._on_flush()

    def _members(self) -> set[Mailbox]:
        return {
            member.target
            for group, members in self._hub.groups.items()
            if self._mine(group)
            for member in members.values()
        }

    def _report(self, lost: int | None, reason: str, concerned: set[Mailbox]) -> None:
        self.gaps += 1
        logger.warning(
            "%s: %s; %s messages may be lost; %d members get a gap",
            self._name,
            reason,
            "some" if lost is None else lost,
            len(concerned),
        )
        for mailbox in concerned:
            mailbox.put_gap(Gap(lost, reason))

"""One shard of an open layer: this process' inbox there, and its memberships.

    syncer   tells Redis which groups this process is a member of, in batches; the local tables are the truth
    reader   renews the lease, trims what has been read, waits for more, and delivers it
    prober   sends itself a message now and then: a reader that is attached to a detached node would never know
    link     carries the commands of all of them, and of the layer's callers

The rules:

- A lease that lapsed, an inbox that is gone, a server that has gone back in time or has taken another's place: all mean
  that messages may be missing. Everybody here who may have missed one is told once, and all memberships are sent again.
- An inbox that was full has a mark where messages are missing; members are told of the number when it is read.
- The reader reads from the id it has read up to, never from "now".
- What cannot be decoded is skipped, counted, and logged once a minute.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..._bell import Bell
from ..._gap import Gap
from ..._mailbox import Envelope, Mailbox
from ...exceptions import ChannelLayerUnavailable
from .._hub import Hub
from ._entry import CHANNEL, GROUP, PROBE, EntryCodec, Parcel, UndecodableEntry
from ._link import BackOff, CommandLink, LinkStatistics
from ._scripts import ACK, ATTACH, EMPTY, GADD, GDEL, SEND
from ._topology import Topology
from ._window import DuplicateFilter
from ._wire import Argument, CommandRefused, LinkLost, ReplyError, Wire, check_version, encode, open_wire

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds for which an inbox lives without its reader.
LEASE = 30.0
#: Seconds for which a read waits for messages. It is also how soon a lost inbox is noticed: Redis does not wake a read
#: whose stream has been deleted.
BLOCK = 0.75
#: Entries that one read returns at the most, and groups in one membership command.
BATCH = 500
#: Seconds between two messages to oneself, and how many may be missing before the reader reconnects.
PROBE_INTERVAL, PROBES_MISSING = 4.0, 2
LOG_INTERVAL = 60.0

NOTHING_READ = b"0-0"


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """A snapshot of one shard.

    Args:
        link: of its command link.
        attached: whether this process has had an inbox there.
        gaps: how often members were told that messages are missing.
        undecodable: entries that were skipped.
        duplicates: messages that came a second time, and were not delivered again.
    """

    link: LinkStatistics
    attached: bool
    gaps: int
    undecodable: int
    duplicates: int


class Shard:
    """This process' part in one shard.

    Args:
        tag: ``{prefix:shard}``, the hash tag of its keys.
        process: this process' id.
        hub: who is here.
        mine: whether a group belongs to this shard.
        is_home: whether messages to single channels of this process come through this shard, too.
    """

    def __init__(
        self,
        *,
        index: int,
        tag: str,
        process: str,
        hub: Hub,
        topology: Topology,
        codec: EntryCodec,
        mine: Callable[[str], bool],
        is_home: bool,
        next_token: Callable[[], str],
        timeout: float,
        expiry: float,
        group_expiry: float,
        inbox_capacity: int,
    ) -> None:
        self.tag = tag
        self.inbox = f"{tag}:i:{process}"
        self.link = CommandLink(f"Redis shard {tag}", lambda: topology.locate(index), timeout)
        self.undecodable = 0
        self.gaps = 0
        self._topology = topology
        self._index = index
        self._process = process
        self._hub = hub
        self._codec = codec
        self._mine = mine
        self._is_home = is_home
        self._next_token = next_token
        self._timeout = timeout
        self._expiry = expiry
        self._group_expiry = group_expiry
        self._inbox_capacity = inbox_capacity
        self._state_key = f"{self.inbox}:state"
        self._working = trio.CancelScope()
        self._lease_ms = int(LEASE * 1000)
        # the reader
        self._last_id: bytes | None = None
        self._attached = trio.Event()
        self._clock_offset = 0.0  # Redis' time minus Trio's
        self._ack = self._ack_answered = 0
        self._lost = 0
        self._address: object = None
        self._doubt: str | None = None
        self._attachments = 0
        self._problem = "not attached yet"
        self._duplicates = DuplicateFilter()
        self._logged_at = -math.inf
        self._session = trio.CancelScope()
        # memberships: what Redis may know, what it has confirmed, what it must be told, who waits for that
        self._told: set[str] = set()
        self._confirmed: set[str] = set()
        self._changed: dict[str, None] = {}
        self._joined: dict[str, trio.Event] = {}
        self._bell = Bell()
        # probes
        self._probes_sent = 0
        self._probes_seen = 0

    def __repr__(self) -> str:
        return f"<Shard {self.tag}, {'attached' if self._attached.is_set() else self._problem}, {self.link!r}>"

    def statistics(self) -> ShardStatistics:
        """An immutable snapshot."""
        return ShardStatistics(
            self.link.statistics(), self._attached.is_set(), self.gaps, self.undecodable, self._duplicates.suppressed
        )

    # -- the layer's side -----------------------------------------------------------------------------------------

    def group_key(self, group: str) -> str:
        """Where Redis keeps which processes are in a group."""
        return f"{self.tag}:g:{group}"

    async def wait_until_joined(self, group: str) -> None:
        """Wait until Redis knows that this process is a member.

        Raises:
            ChannelLayerUnavailable: it did not within the time limit. The membership stands, and Redis will be told.

        Cancellation: changes nothing.
        """
        if group in self._confirmed:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        event = self._joined.setdefault(group, trio.Event())
        with trio.move_on_after(self._timeout):
            await event.wait()
            return
        raise ChannelLayerUnavailable(
            f"Redis could not be told within {self._timeout:g} seconds that this process joins {group!r}; {self.link!r}"
        )

    def membership_changed(self, group: str) -> None:
        """Say that a group has got its first, or lost its last, member here."""
        self._changed[group] = None
        self._confirmed.discard(group)
        self._bell.ring()

    async def run(self) -> None:
        """Serve the shard until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run)
            with self._working:
                async with trio.open_nursery() as workers:
                    workers.start_soon(self._read_for_ever)
                    workers.start_soon(self._sync_memberships)
                    workers.start_soon(self._refresh_memberships)
                    workers.start_soon(self._probe)

    async def wait_until_attached(self) -> None:
        """Wait until the inbox exists."""
        await self._attached.wait()

    async def leave(self) -> None:
        """At a graceful end: remove this process from Redis."""
        self._working.cancel()  # a reader that misses its inbox makes a new one
        groups = list(self._told)
        for start in range(0, len(groups), BATCH):
            keys = [self.group_key(group) for group in groups[start : start + BATCH]]
            await self.link.call(*GDEL(*keys, args=(self._process,)))
        await self.link.call("DEL", self.inbox, self._state_key)

    async def flush(self) -> None:
        """Forget every message and membership in the shard; see the layer's ``flush``."""
        inboxes = f"{self.tag}:i:".encode()
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in self.tag) + ":*"
        cursor: bytes | int = 0
        try:
            while True:
                cursor, keys = await self.link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
                for key in keys:
                    if not key.startswith(inboxes):
                        await self.link.call("DEL", key)
                    elif not key.endswith(b":state"):
                        told = int(key != self.inbox.encode())
                        await self.link.call(*EMPTY(key, key + b":state", args=(told,)))
                if int(cursor) == 0:
                    break
        finally:
            # What this process still holds when it is over is told again.
            self._tell_all_again()

    # -- memberships ----------------------------------------------------------------------------------------------

    async def _sync_memberships(self) -> None:
        while True:
            await self._attached.wait()
            batch = list(self._changed)[:BATCH]
            if not batch:
                await self._bell.wait()
                continue
            for group in batch:
                del self._changed[group]
            joining = [group for group in batch if group in self._hub.groups]
            leaving = [group for group in batch if group not in self._hub.groups and group in self._told]
            self._told.update(joining)  # from here on it may know, whatever becomes of the answer
            try:
                if joining:
                    keys = [self.group_key(group) for group in joining]
                    await self.link.call(*GADD(*keys, args=(self._process, int(self._group_expiry * 1000))))
                if leaving:
                    await self.link.call(*GDEL(*map(self.group_key, leaving), args=(self._process,)))
            except ChannelLayerUnavailable as error:
                # An outage is logged by the link, once.
                level = logging.WARNING if isinstance(error, CommandRefused) else logging.DEBUG
                logger.log(level, "%s: memberships could not be told, trying again: %s", self.link.name, error)
                self._changed = {**dict.fromkeys(batch), **self._changed}
                await trio.sleep(self._timeout / 10)
                continue
            self._told.difference_update(leaving)
            for group in batch:
                if group in self._changed:
                    continue  # meanwhile it was left, or all is to be told again: what was confirmed may be void
                if group in self._told:
                    self._confirmed.add(group)
                event = self._joined.pop(group, None)
                if event is not None:
                    event.set()

    async def _refresh_memberships(self) -> None:
        while True:
            await trio.sleep(self._group_expiry / 3)
            self._changed.update(dict.fromkeys(self._told))
            self._bell.ring()

    def _tell_all_again(self) -> None:
        """Redis may have forgotten everything: nothing is confirmed any more."""
        self._confirmed.clear()
        self._changed.update(dict.fromkeys(self._told))
        self._changed.update((group, None) for group in self._hub.groups if self._mine(group))
        self._bell.ring()

    # -- the reader -----------------------------------------------------------------------------------------------

    async def _read_for_ever(self) -> None:
        back_off = BackOff()
        while True:
            with trio.CancelScope() as self._session:
                try:
                    wire = await open_wire(await self._topology.locate(self._index), self._timeout)
                    try:
                        await self._attach(wire)
                        back_off.reset()
                        self._problem = "attached"
                        await self._read(wire)
                    finally:
                        with trio.CancelScope(shield=True):
                            await wire.aclose()
                except LinkLost as error:
                    self._problem = str(error)
                    logger.debug("the reader of %s: %s", self.link.name, error)
                except Exception as error:
                    # A defect, or a server like no other: without its reader the process would be deaf.
                    self._problem = f"{type(error).__name__}: {error}"
                    logger.exception("the reader of %s failed, and begins again", self.link.name)
            await back_off.wait()

    async def _attach(self, wire: Wire) -> None:
        self._attachments += 1
        await check_version(wire, self._timeout)
        await self._ask(wire, ATTACH.load)
        await self._ask(wire, ACK.load)
        attach = ATTACH(self.inbox, self._state_key, args=(self._lease_ms,))
        existed, last, time, lost, ack = await self._ask(wire, attach)
        self._see_time(time)
        doubt, self._doubt = self._doubt, None
        if self._last_id is None:
            self._last_id = last
        elif not existed:
            self._last_id = last
            doubt = "the inbox was gone"
        elif _order(last) < _order(self._last_id):
            self._last_id = NOTHING_READ
            doubt = "Redis went back in time"
        elif ack < self._ack_answered:
            doubt = "Redis went back in time"
        elif wire.host.address != self._address:
            doubt = "another Redis has taken over"
        if doubt is not None:
            self._lost = lost
            self._report_loss(doubt)
        self._address = wire.host.address
        self._ack_answered = ack
        self._probes_seen = self._probes_sent
        self._tell_all_again()
        self._attached.set()

    async def _ask(self, wire: Wire, command: tuple[Argument, ...]) -> Any:
        [reply] = await wire.exchange(command, patience=self._timeout)
        if isinstance(reply, ReplyError):
            raise LinkLost(f"{wire.host} says: {reply}")
        return reply

    async def _read(self, wire: Wire) -> None:
        block = int(BLOCK * 1000)
        while True:
            last_id = self._last_id or NOTHING_READ
            self._ack += 1
            ack = ACK(self.inbox, self._state_key, args=(self._lease_ms, _successor(last_id), self._ack))
            read: tuple[Argument, ...] = ("XREAD", "COUNT", BATCH, "BLOCK", block, "STREAMS", self.inbox, last_id)
            replies: list[Any] = []
            with trio.move_on_after(BLOCK + self._timeout) as patience:
                await wire.send(encode(*ack) + encode(*read))
                while len(replies) < 2:
                    replies += await wire.receive()
                    # Not only once the read is over: it would wait for an inbox that is gone.
                    self._check_lease(wire, replies[0])
            if patience.cancelled_caught:
                raise LinkLost(f"{wire.host} has been silent for {BLOCK + self._timeout:g} seconds")
            self._ack_answered = self._ack
            streams = replies[1]
            if isinstance(streams, ReplyError):
                raise LinkLost(f"{wire.host} says: {streams}")
            for _name, entries in streams or ():
                for entry_id, fields in entries:
                    self._last_id = entry_id
                    self._deliver(entry_id, fields)
                    # A batch may be longer than a mailbox holds: its members get their turn.
                    await trio.lowlevel.checkpoint()

    def _check_lease(self, wire: Wire, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise LinkLost(f"{wire.host} says: {reply}")
        alive, time = reply
        if not alive:
            raise LinkLost("the lease of the inbox has lapsed")
        self._see_time(time)

    def _see_time(self, time: list[bytes]) -> None:
        seconds, microseconds = time
        self._clock_offset = int(seconds) + int(microseconds) / 1e6 - trio.current_time()

    def _deliver(self, entry_id: bytes, fields: list[bytes] | None) -> None:
        try:
            content = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
            if b"l" in content:
                self._pass_mark(int(content[b"l"]), flushed=b"f" in content)
                return
            if self._duplicates.is_duplicate(content[b"t"], trio.current_time()):
                return
            parcel: Parcel = self._codec.unpack(content[b"b"])
            if parcel.kind not in (GROUP, CHANNEL, PROBE):
                raise UndecodableEntry(f"an entry of an unknown kind, {parcel.kind}")
            probe = int(parcel.name) if parcel.kind == PROBE else 0
        except (UndecodableEntry, KeyError, ValueError, TypeError) as error:
            self.count_undecodable(entry_id.decode(), error)
            return
        milliseconds = int(entry_id.partition(b"-")[0])
        expires_at = milliseconds / 1000 - self._clock_offset + self._expiry
        envelope = Envelope(parcel.message, expires_at)
        if parcel.kind == GROUP:
            self._hub.fan_out(parcel.name, envelope)
        elif parcel.kind == CHANNEL:
            mailbox = self._hub.mailboxes.get(parcel.name)
            if mailbox is None:
                self._hub.counters.gone += 1
            else:
                mailbox.put(envelope)
        else:
            self._probes_seen = min(max(self._probes_seen, probe), self._probes_sent + 1)

    def _pass_mark(self, lost: int, *, flushed: bool) -> None:
        """The place where messages are missing that were refused or flushed; `lost` counts all that ever were."""
        more, self._lost = lost - self._lost, max(lost, self._lost)
        if more > 0 or flushed:
            self._report_gap(max(more, 0), "flushed" if flushed else "the inbox was full", self._members())
        if flushed:
            self._tell_all_again()

    def count_undecodable(self, where: str, error: Exception) -> None:
        """Count an entry that is skipped, and log it once a minute."""
        self.undecodable += 1
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.error(
                "%s: an entry is skipped, %s: %s (%d so far; logged once a minute)",
                self.link.name,
                where,
                error,
                self.undecodable,
            )

    def _members(self) -> set[Mailbox]:
        return {
            mailbox
            for group, mailboxes in self._hub.groups.items()
            if self._mine(group)
            for mailbox in mailboxes.values()
        }

    def _report_loss(self, reason: str) -> None:
        """Nobody knows how many messages are missing; those sent to single channels may be, too."""
        self._report_gap(None, reason, set(self._hub.mailboxes.values()) if self._is_home else self._members())

    def _report_gap(self, lost: int | None, reason: str, concerned: set[Mailbox]) -> None:
        self.gaps += 1
        logger.warning(
            "%s: %s; %s messages may be lost, and %d members are told",
            self.link.name,
            reason,
            "some" if lost is None else lost,
            len(concerned),
        )
        for mailbox in concerned:
            mailbox.put_gap(Gap(lost, reason))

    # -- probes ---------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        await self._attached.wait()
        while True:
            await trio.sleep(PROBE_INTERVAL)
            if self._probes_sent - self._probes_seen >= PROBES_MISSING:
                self._attach_again("messages to oneself did not arrive")
                continue
            attachment = self._attachments
            blob = self._codec.pack(PROBE, str(self._probes_sent + 1), {})
            try:
                answer = await self.link.call(
                    *SEND(self.inbox, args=(self._inbox_capacity + 1, self._next_token(), blob))
                )
            except ChannelLayerUnavailable:
                continue  # the link has said so
            if answer == 1:
                self._probes_sent += 1  # a full inbox has not taken it
            elif answer == -1 and attachment == self._attachments:
                self._attach_again("the inbox was gone")

    def _attach_again(self, doubt: str) -> None:
        self._doubt = doubt
        self._probes_seen = self._probes_sent
        self._session.cancel()


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)


def _successor(entry_id: bytes | None) -> bytes:
    """The first id that has not been read: what is before it can be trimmed."""
    milliseconds, number = _order(entry_id or NOTHING_READ)
    return b"%d-%d" % (milliseconds, number + 1)

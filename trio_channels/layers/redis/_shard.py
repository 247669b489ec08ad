"""One shard of an open layer: this process' inbox there, and its memberships.

    syncer   tells Redis which groups this process is a member of, in batches; the local tables are the truth
    reader   renews the lease, trims what has been read, waits for more, and delivers it
    prober   sends itself a message now and then: a reader that is attached to a detached node would never know
    link     carries the commands of all of them, and of the layer's callers

The rules:

- A lease that lapsed, an inbox that is gone, ids that go backwards: all mean that messages may be missing. Every member
  of
  the shard's groups is told once, and all memberships are sent again.
- The reader reads from the id it has read up to, never from "now".
- What cannot be decoded is skipped, counted, and logged once a minute.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import trio

from ..._bell import Bell
from ..._gap import Gap
from ..._mailbox import Envelope
from ...exceptions import ChannelLayerUnavailable
from .._hub import Hub
from ._entry import CHANNEL, GROUP, PROBE, EntryCodec, Parcel, UndecodableEntry
from ._link import BackOff, CommandLink
from ._scripts import ACK, ATTACH, EMPTY, GADD, GDEL, SEND
from ._topology import Topology
from ._window import DuplicateFilter
from ._wire import Argument, LinkLost, ReplyError, Wire, encode, open_wire

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds for which an inbox lives without its reader.
LEASE = 30.0
#: Entries that one read returns at the most, and groups in one membership command.
BATCH = 500
#: Seconds between two messages to oneself, and how many may be missing before the reader reconnects.
PROBE_INTERVAL, PROBES_MISSING = 4.0, 2
LOG_INTERVAL = 60.0

NOTHING_READ = b"0-0"


class Shard:
    """This process' part in one shard.

    Args:
        tag: ``{prefix:shard}``, the hash tag of its keys.
        process: this process' id.
        hub: who is here.
        mine: whether a group belongs to this shard.
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
        self._next_token = next_token
        self._timeout = timeout
        self._expiry = expiry
        self._group_expiry = group_expiry
        self._inbox_capacity = inbox_capacity
        self._lost_key = f"{self.inbox}:lost"
        self._lease_ms = int(LEASE * 1000)
        # the reader
        self._last_id: bytes | None = None
        self._attached = trio.Event()
        self._clock_offset = 0.0  # Redis' time minus Trio's
        self._duplicates = DuplicateFilter()
        self._logged_at = -math.inf
        self._session = trio.CancelScope()
        # memberships: what Redis has been told, and who waits for what to be told
        self._told: set[str] = set()
        self._changed: dict[str, None] = {}
        self._joined: dict[str, trio.Event] = {}
        self._bell = Bell()
        # probes
        self._probes_sent = 0
        self._probes_seen = 0

    def __repr__(self) -> str:
        return f"<Shard {self.tag}, {'attached' if self._attached.is_set() else 'not attached'}, {self.link!r}>"

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
        if group in self._told and group not in self._changed:
            return
        event = self._joined.setdefault(group, trio.Event())
        self.membership_changed(group)
        with trio.move_on_after(self._timeout):
            await event.wait()
            return
        raise ChannelLayerUnavailable(
            f"Redis could not be told within {self._timeout:g} seconds that this process joins {group!r}; {self.link!r}"
        )

    def membership_changed(self, group: str) -> None:
        """Say that a group has got its first, or lost its last, member here."""
        self._changed[group] = None
        self._bell.ring()

    async def run(self) -> None:
        """Serve the shard until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run)
            nursery.start_soon(self._read_for_ever)
            nursery.start_soon(self._sync_memberships)
            nursery.start_soon(self._refresh_memberships)
            nursery.start_soon(self._probe)

    async def wait_until_attached(self) -> None:
        """Wait until the inbox exists."""
        await self._attached.wait()

    async def leave(self) -> None:
        """At a graceful end: remove this process from Redis."""
        groups = list(self._told)
        for start in range(0, len(groups), BATCH):
            keys = [self.group_key(group) for group in groups[start : start + BATCH]]
            await self.link.call(*GDEL(*keys, args=(self._process,)))
        await self.link.call("DEL", self.inbox, self._lost_key)

    async def flush(self) -> None:
        """Forget every message and membership in the shard; see the layer's ``flush``."""
        inboxes = f"{self.tag}:i:"
        cursor: bytes | int = 0
        try:
            while True:
                cursor, keys = await self.link.call("SCAN", cursor, "MATCH", f"{self.tag}:*", "COUNT", 1000)
                for key in map(bytes.decode, keys):
                    if not key.startswith(inboxes):
                        await self.link.call("DEL", key)
                    elif not key.endswith(":lost"):
                        told = int(key != self.inbox)
                        await self.link.call(*EMPTY(key, f"{key}:lost", args=(told, int(self._group_expiry * 1000))))
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
            try:
                if joining:
                    keys = [self.group_key(group) for group in joining]
                    await self.link.call(*GADD(*keys, args=(self._process, int(self._group_expiry * 1000))))
                if leaving:
                    await self.link.call(*GDEL(*map(self.group_key, leaving), args=(self._process,)))
            except (ChannelLayerUnavailable, ReplyError) as error:
                logger.warning("%s: memberships could not be told, trying again: %s", self.link.name, error)
                self._changed = {**dict.fromkeys(batch), **self._changed}
                await trio.sleep(self._timeout / 10)
                continue
            self._told.update(joining)
            self._told.difference_update(leaving)
            for group in batch:
                event = self._joined.pop(group, None)
                if event is not None:
                    event.set()

    async def _refresh_memberships(self) -> None:
        while True:
            await trio.sleep(self._group_expiry / 3)
            self._tell_all_again()

    def _tell_all_again(self) -> None:
        self._told.clear()
        for group in self._hub.groups:
            if self._mine(group):
                self._changed[group] = None
        self._bell.ring()

    # -- the reader -----------------------------------------------------------------------------------------------

    async def _read_for_ever(self) -> None:
        back_off = BackOff()
        while True:
            with trio.CancelScope() as self._session:
                try:
                    wire = await open_wire(await self._topology.locate(self._index))
                    try:
                        await self._attach(wire)
                        back_off.reset()
                        await self._read(wire)
                    finally:
                        with trio.CancelScope(shield=True):
                            await wire.aclose()
                except LinkLost as error:
                    logger.debug("the reader of %s: %s", self.link.name, error)
            await back_off.wait()

    async def _attach(self, wire: Wire) -> None:
        await _ask(wire, ATTACH.load)
        await _ask(wire, ACK.load)
        existed, last, (seconds, microseconds) = await _ask(wire, ATTACH(self.inbox, args=(self._lease_ms,)))
        self._clock_offset = int(seconds) + int(microseconds) / 1e6 - trio.current_time()
        if self._last_id is None:
            self._last_id = last
        elif not existed:
            self._last_id = last
            self._report_gap(None, "the inbox was gone")
        elif _order(last) < _order(self._last_id):
            self._last_id = NOTHING_READ
            self._report_gap(None, "Redis went back in time")
        self._probes_seen = self._probes_sent
        self._tell_all_again()
        self._attached.set()

    async def _read(self, wire: Wire) -> None:
        block = int(LEASE * 1000 / 10)
        while True:
            ack = encode(*ACK(self.inbox, self._lost_key, args=(self._lease_ms, _successor(self._last_id))))
            read = encode("XREAD", "COUNT", BATCH, "BLOCK", block, "STREAMS", self.inbox, self._last_id or NOTHING_READ)
            await wire.send(ack + read)
            replies: list[Any] = []
            with trio.move_on_after(block / 1000 + self._timeout) as patience:
                while len(replies) < 2:
                    replies += await wire.receive()
            if patience.cancelled_caught:
                raise LinkLost(f"{wire.host} has been silent for {block / 1000 + self._timeout:g} seconds")
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise LinkLost(f"{wire.host} says: {reply}")
            (alive, lost), streams = replies
            if lost:
                self._report_gap(int(lost), "the inbox was full or flushed")
                self._tell_all_again()
            if not alive:
                raise LinkLost("the lease of the inbox has lapsed")
            for _name, entries in streams or ():
                for entry_id, fields in entries:
                    self._last_id = entry_id
                    self._deliver(entry_id, fields)
                    # A batch may be longer than a mailbox holds: its members get their turn.
                    await trio.lowlevel.checkpoint()

    def _deliver(self, entry_id: bytes, fields: list[bytes] | None) -> None:
        try:
            content = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
            if self._duplicates.is_duplicate(content[b"t"]):
                return
            parcel: Parcel = self._codec.unpack(content[b"b"])
        except (UndecodableEntry, KeyError, ValueError, TypeError) as error:
            self._count_undecodable(entry_id, error)
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
        elif parcel.kind == PROBE:
            self._probes_seen = max(self._probes_seen, parcel.message.get("n", 0))

    def _count_undecodable(self, entry_id: bytes, error: Exception) -> None:
        self.undecodable += 1
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.error(
                "%s: entry %s is skipped: %s (%d so far; logged once a minute)",
                self.link.name,
                entry_id.decode("ascii", "replace"),
                error,
                self.undecodable,
            )

    def _report_gap(self, lost: int | None, reason: str) -> None:
        self.gaps += 1
        members = {
            mailbox
            for group, mailboxes in self._hub.groups.items()
            if self._mine(group)
            for mailbox in mailboxes.values()
        }
        logger.warning(
            "%s: %s; %s messages may be lost, and %d members are told",
            self.link.name,
            reason,
            lost or "some",
            len(members),
        )
        for mailbox in members:
            mailbox.put_gap(Gap(lost, reason))

    # -- probes ---------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        await self._attached.wait()
        while True:
            await trio.sleep(PROBE_INTERVAL)
            if self._probes_sent - self._probes_seen >= PROBES_MISSING:
                self._report_gap(None, "messages to oneself do not arrive")
                self._probes_seen = self._probes_sent
                self._session.cancel()
                continue
            blob = self._codec.pack(PROBE, "", {"n": self._probes_sent + 1})
            try:
                await self.link.call(*SEND(self.inbox, args=(self._inbox_capacity + 1, self._next_token(), blob)))
            except (ChannelLayerUnavailable, ReplyError):
                continue  # the link has said so
            self._probes_sent += 1


async def _ask(wire: Wire, command: tuple[Argument, ...]) -> Any:
    [reply] = await wire.exchange(command)
    if isinstance(reply, ReplyError):
        raise LinkLost(f"{wire.host} says: {reply}")
    return reply


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)


def _successor(entry_id: bytes | None) -> bytes:
    """The first id that has not been read: what is before it can be trimmed."""
    milliseconds, number = _order(entry_id or NOTHING_READ)
    return b"%d-%d" % (milliseconds, number + 1)

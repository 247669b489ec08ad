"""One shard of an open layer: this process' inbox there, and its memberships.

pipeline      sends the commands of the others, and of the layer's callers
reader        reads the inbox, renews its lease, and trims the entries that were read
delivery      delivers the entries
memberships   tells Redis in which groups this process has members, in batches; the local tables are the truth
history       reads the latest messages of groups, and sends those that are kept
presence      tells Redis what the connections of this process track
views         the presence of groups that somebody watches here
prober        sends messages to its own inbox, to find out that the reader is connected to a detached node
supervisor    restarts the tasks of these when they crash
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import trio

from ..hub import Hub
from .batch import GroupSends
from .codec import EntryCodec, Payload
from .delivery import Delivery
from .history import ShardHistory
from .hosts import Host
from .inbox import InboxReader
from .keys import ShardKeys
from .memberships import Memberships
from .pipeline import Pipeline, PipelineStatistics
from .presence import PresenceSync
from .presence_views import PresenceViews
from .probe import Prober
from .scripts import EMPTY_INBOX
from .supervision import Supervisor

ShardState = Literal["working", "connecting", "broken"]


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """A snapshot of one shard.

    Args:
        state: ``working``; ``connecting`` while Redis is away; ``broken`` when a task crashes again and again.
        problem: why it is not working, as a sentence, or None.
        pipeline: of its command pipeline.
        attached: whether this process has had an inbox there.
        gaps: number of reported gaps.
        undecodable: number of skipped entries.
        duplicates: messages that came a second time, and were dropped.
        crashes: crashes of its tasks, each counted since the task was last stable.
    """

    state: ShardState
    problem: str | None
    pipeline: PipelineStatistics
    attached: bool
    gaps: int
    undecodable: int
    duplicates: int
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """The options that all shards of a session share; see the layer."""

    process: str
    hub: Hub
    codec: EntryCodec
    next_number: Callable[[], int]
    timeout: float
    expiry: float
    inbox_capacity: int
    keeps_history: bool
    on_broken: Callable[[str], None]
    on_membership: Callable[[Payload], None]


class Shard:
    """This process' part in one shard."""

    def __init__(
        self,
        *,
        tag: str,
        locate: Callable[[], Awaitable[Host]],
        mine: Callable[[str], bool],
        is_home: bool,
        options: ShardOptions,
    ) -> None:
        name = f"Redis shard {tag}"
        self.tag = tag
        self.keys = ShardKeys(tag, options.process, options.next_number, options.timeout)
        self.pipeline = Pipeline(name, locate, options.timeout)
        self.group_sends = GroupSends(self.keys, options.inbox_capacity)
        self.supervisor = Supervisor(name, options.on_broken)
        self.memberships = Memberships(
            keys=self.keys,
            pipeline=self.pipeline,
            hub=options.hub,
            mine=mine,
            timeout=options.timeout,
            on_forgotten=lambda groups: self.delivery.report_forgotten(groups),
        )
        self.presence = PresenceSync(
            keys=self.keys,
            pipeline=self.pipeline,
            sends=self.group_sends,
            codec=options.codec,
            timeout=options.timeout,
        )
        self.views = PresenceViews(
            keys=self.keys,
            pipeline=self.pipeline,
            memberships=self.memberships,
            hub=options.hub,
            codec=options.codec,
            timeout=options.timeout,
        )
        self.delivery = Delivery(
            name=name,
            hub=options.hub,
            codec=options.codec,
            mine=mine,
            is_current=self.memberships.is_current,
            is_home=is_home,
            expiry=options.expiry,
            on_probe=lambda number: self._prober.saw(number),
            on_flush=self._send_all_again,
            on_membership=options.on_membership,
        )
        self.reader = InboxReader(
            name=name,
            keys=self.keys,
            locate=locate,
            pipeline=self.pipeline,
            delivery=self.delivery,
            capacity=options.inbox_capacity,
            timeout=options.timeout,
            on_attached=self._attached,
        )
        self.history = ShardHistory(
            keys=self.keys,
            pipeline=self.pipeline,
            codec=options.codec,
            delivery=self.delivery,
            inbox_capacity=options.inbox_capacity,
        )
        if options.keeps_history:
            self.pipeline.on_connected = self.history.on_connected
        self._prober = Prober(
            keys=self.keys,
            pipeline=self.pipeline,
            reader=self.reader,
            codec=options.codec,
            capacity=options.inbox_capacity,
        )
        self._working = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Shard {self.tag}, {self.reader!r}, {self.pipeline!r}>"

    def statistics(self) -> ShardStatistics:
        """An immutable snapshot."""
        pipeline = self.pipeline.statistics()
        broken = self.supervisor.problem
        connected = self.reader.connected and pipeline.connected
        return ShardStatistics(
            state="broken" if broken else "working" if connected else "connecting",
            problem=broken or (None if connected else self.reader.problem),
            pipeline=pipeline,
            attached=self.reader.attached.is_set(),
            gaps=self.delivery.gaps,
            undecodable=self.delivery.undecodable,
            duplicates=self.delivery.duplicates.suppressed,
            crashes=self.supervisor.crashes,
        )

    def _attached(self) -> None:
        self._prober.begin_again()
        self._send_all_again()

    def _send_all_again(self) -> None:
        self.memberships.send_all_again()
        self.presence.send_all_again()

    async def contacted(self) -> None:
        """Wait for the first attempts to reach Redis; raises Misconfigured if more would fail as they did."""
        await self.pipeline.contact.wait()
        await self.reader.contact.wait()

    async def run(self) -> None:
        """Run the tasks of the shard until cancelled; then calls that still wait raise ChannelLayerUnavailable."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.supervisor.run, "the pipeline", self.pipeline.run)
                nursery.start_soon(self.supervisor.run, "the clock of the pipeline", self.pipeline.watch_deadlines)
                with self._working:
                    async with trio.open_nursery() as workers:
                        workers.start_soon(self.supervisor.run, "the reader", self.reader.run)
                        await self.reader.attached.wait()
                        workers.start_soon(self.supervisor.run, "the membership task", self.memberships.sync)
                        workers.start_soon(self.supervisor.run, "the refreshing task", self.memberships.refresh)
                        workers.start_soon(self.supervisor.run, "the probing task", self._prober.run)
                        workers.start_soon(self.supervisor.run, "the presence task", self.presence.sync)
                        workers.start_soon(self.supervisor.run, "the presence's refreshing task", self.presence.refresh)
                        workers.start_soon(self.supervisor.run, "the task of views", self.views.keep)
                        workers.start_soon(self.supervisor.run, "the sweeping task", self.views.sweep)
        finally:
            self.pipeline.close()  # nothing ends the wait of its callers any more

    async def leave(self) -> None:
        """Remove this process from Redis, at a graceful end; else the rest expires with its lease."""
        self._working.cancel()  # first, as the reader would make the inbox again
        await self.presence.quit()
        await self.memberships.quit_all()
        keys = self.keys
        await self.pipeline.call("DEL", keys.inbox, keys.state, keys.done, keys.refused)

    async def flush(self) -> None:
        """Delete all messages and memberships of the shard; see the layer's ``flush``."""
        inboxes = self.keys.inboxes.encode()
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in self.tag) + ":*"
        cursor: bytes | int = 0
        found: set[bytes] = set()
        try:
            while True:
                cursor, keys = await self.pipeline.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
                others = [key for key in keys if not key.startswith(inboxes) and key != self.keys.epoch.encode()]
                if others:
                    await self.pipeline.call("DEL", *others)
                found.update(key for key in keys if key.startswith(inboxes) and not key.endswith(b":state"))
                if int(cursor) == 0:
                    break
            # Last: the owner of a flushed inbox sends its memberships again, which must not be deleted.
            for key in found:
                told = int(key != self.keys.inbox.encode())
                await self.pipeline.call(*EMPTY_INBOX(key, key + b":state", args=(told,)))
        finally:
            # This process keeps its members: tell Redis again.
            self._send_all_again()

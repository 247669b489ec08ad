"""One shard of an open layer: this process' inbox there, and its memberships.

link          carries the commands of all of them, and of the layer's callers
reader        renews the lease, trims what has been read, waits for more, and has it delivered
memberships   tells Redis which groups this process is a member of, in batches; the local tables are the truth
prober        sends itself a message now and then: a reader that is attached to a detached node would never know
supervisor        begins again with whichever of these has crashed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import trio

from ..hub import Hub
from .batch import GroupSends
from .codec import EntryCodec
from .delivery import Delivery
from .hosts import Host
from .inbox import InboxReader
from .keys import ShardKeys
from .memberships import Memberships
from .pipeline import Pipeline, PipelineStatistics
from .probe import Prober
from .scripts import EMPTY_INBOX
from .supervision import Supervisor

ShardState = Literal["working", "connecting", "broken"]


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """A snapshot of one shard.

    Args:
        state: ``working``; ``connecting`` while Redis is away; ``broken`` when one of its tasks goes on crashing.
        problem: why it is not working, as a sentence, or None.
        pipeline: of its command pipeline.
        attached: whether this process has had an inbox there.
        gaps: how often members were told that messages are missing.
        undecodable: entries that were skipped.
        duplicates: messages that came a second time, and were not delivered again.
        crashes: how often its tasks have crashed, since each was last stable.
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
    """What all shards of an open layer have in common; see the layer."""

    process: str
    hub: Hub
    codec: EntryCodec
    next_number: Callable[[], int]
    timeout: float
    expiry: float
    inbox_capacity: int
    on_broken: Callable[[str], None]


class Shard:
    """This process' part in one shard.

    Args:
        tag: ``{prefix:shard}``, the hash tag of its keys.
        locate: says where it is, anew each time.
        mine: whether a group belongs to this shard.
        is_home: whether messages to single channels of this process come through this shard, too.
        options: what all shards have in common.
    """

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
        )
        self.delivery = Delivery(
            name=name,
            hub=options.hub,
            codec=options.codec,
            mine=mine,
            is_home=is_home,
            expiry=options.expiry,
            on_probe=lambda number: self._prober.saw(number),
            on_flush=self.memberships.tell_all_again,
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
            duplicates=self.delivery.duplicates,
            crashes=self.supervisor.crashes,
        )

    def _attached(self) -> None:
        self._prober.begin_again()
        self.memberships.tell_all_again()

    async def run(self) -> None:
        """Serve the shard until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.supervisor.run, "the command link", self.pipeline.run)
                nursery.start_soon(self.supervisor.run, "the clock of the command link", self.pipeline.watch_callers)
                with self._working:
                    async with trio.open_nursery() as workers:
                        workers.start_soon(self.supervisor.run, "the reader", self.reader.run)
                        await self.reader.attached.wait()
                        workers.start_soon(self.supervisor.run, "the membership task", self.memberships.sync)
                        workers.start_soon(self.supervisor.run, "the refreshing task", self.memberships.refresh)
                        workers.start_soon(self.supervisor.run, "the probing task", self._prober.run)
        finally:
            self.pipeline.close()  # who still waits there has no clock any more

    async def leave(self) -> None:
        """At a graceful end: remove this process from Redis."""
        self._working.cancel()  # a reader that misses its inbox makes a new one
        await self.memberships.quit_all()
        keys = self.keys
        await self.pipeline.call("DEL", keys.inbox, keys.state, keys.done, keys.refused)

    async def flush(self) -> None:
        """Forget every message and membership in the shard; see the layer's ``flush``."""
        inboxes = self.keys.inboxes.encode()
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in self.tag) + ":*"
        cursor: bytes | int = 0
        found: set[bytes] = set()
        try:
            while True:
                cursor, keys = await self.pipeline.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
                others = [key for key in keys if not key.startswith(inboxes)]
                if others:
                    await self.pipeline.call("DEL", *others)
                found.update(key for key in keys if key.startswith(inboxes) and not key.endswith(b":state"))
                if int(cursor) == 0:
                    break
            # Last: whose inbox it is tells Redis of its memberships again, which must not be deleted then.
            for key in found:
                told = int(key != self.keys.inbox.encode())
                await self.pipeline.call(*EMPTY_INBOX(key, key + b":state", args=(told,)))
        finally:
            # What this process still holds when it is over is told again.
            self.memberships.tell_all_again()

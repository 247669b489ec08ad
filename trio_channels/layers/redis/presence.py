"""Tells Redis what the connections of this process track. The local table is the truth, Redis is a copy.

The rules:

- Redis keeps the trackings of a group in a hash: reference of the tracking -> key and meta.
- A change goes into the hash first. Then the processes with a view of the group get it as a message. So a view that
  reads the hash after it has become a receiver misses nothing: see
  :mod:`~trio_channels.layers.redis.presence_views`.
- The messages go to a group of their own, :func:`~trio_channels.layers.names.presence_group`. Its members are views.
- A tracking lives as long as the lease of its process: nothing is renewed for each. When the process attaches again,
  all of its trackings are sent again.
- Trackings that have ended are remembered for a lease: a Redis that goes back in time would have them again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from ..._concurrency.wakeup import Wakeup
from ...exceptions import ChannelLayerUnavailable
from ..names import presence_group
from ..presence.state import Meta
from ..presence.table import Found, Tracking
from ..presence.view import Change, View
from .batch import GroupSends
from .codec import GROUP, PRESENCE, EntryCodec
from .connection import Argument, CommandRefused
from .keys import GROUP_LEASES, ShardKeys
from .pipeline import Pipeline
from .scripts import PRESENCE_CHANGE

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger("trio_channels.layers.redis")

#: Most trackings, and most bytes of them, in one command.
BATCH, BATCH_BYTES = 500, 128 * 1024
#: The type of the messages to views.
CHANGE = "presence.change"

#: A group and the reference of a tracking.
Place = tuple[str, str]


class PresenceSync:
    """The trackings of one shard that Redis may have, and the changes that it must be told."""

    def __init__(
        self, *, keys: ShardKeys, pipeline: Pipeline, sends: GroupSends, codec: EntryCodec, timeout: float
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._sends = sends
        self._codec = codec
        self._timeout = timeout
        self._expiry_ms = GROUP_LEASES * keys.lease_ms
        self._tracked: dict[Place, Tracking] = {}
        self._known: dict[Place, None] = {}  # that Redis may have
        # With the time at which Redis confirmed the end, and whether the leave was held back.
        self._ended: deque[tuple[float, Place, bool]] = deque()
        self._confirmed: set[Place] = set()
        self._changed: dict[Place, bool] = {}  # with whether the leave is held back
        self._settled: dict[Place, trio.Event] = {}
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        return f"<PresenceSync: Redis has {len(self._known)} trackings, {len(self._changed)} changes wait>"

    def changed(self, begun: Iterable[Tracking], ended: Mapping[Place, bool]) -> None:
        """Note trackings that have begun and that have ended, and for the latter whether the leave is held back."""
        for tracking in begun:
            place = tracking.group, tracking.ref
            self._tracked[place] = tracking
            self._changed[place] = False
        for place, held in ended.items():
            if self._tracked.pop(place, None) is not None:
                self._confirmed.discard(place)
                self._changed[place] = held
        self._wakeup.set()

    async def settle(self, place: Place) -> None:
        """Wait until Redis has a tracking and its watchers know; raises ChannelLayerUnavailable: it stands then too."""
        if place in self._confirmed:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        event = self._settled.setdefault(place, trio.Event())
        with trio.move_on_after(self._timeout):
            await event.wait()
            return
        raise ChannelLayerUnavailable(
            f"Redis did not confirm within {self._timeout:g} seconds that a key is tracked in {place[0]!r}; "
            f"{self._pipeline.state}"
        )

    def send_all_again(self) -> None:
        """Send all trackings again, as Redis may have lost them; and the ends, as it may have lost these."""
        self._confirmed.clear()
        self._forget_ended()
        for _, place, held in self._ended:
            self._changed.setdefault(place, held)
            self._known[place] = None
        self._ended.clear()
        for place in (*self._known, *self._tracked):
            self._changed.setdefault(place, False)
        self._wakeup.set()

    async def sync(self) -> None:
        """Send changes to Redis until cancelled."""
        while True:
            if not self._changed:
                await self._wakeup.wait()
                continue
            try:
                await self._send_some()
            except ChannelLayerUnavailable as error:
                level = logging.WARNING if isinstance(error, CommandRefused) else logging.DEBUG
                logger.log(level, "%s: Redis did not take presence, trying again: %s", self._pipeline.name, error)
                await trio.sleep(self._timeout / 10)

    async def _send_some(self) -> None:
        batch, changes, rows = self._gather()
        sent = False
        try:
            if rows:
                await self._send(changes, rows)
            sent = True
        finally:
            if not sent:  # also after a cancellation or a crash
                self._changed = batch | self._changed
        now = trio.current_time()
        for place, held in batch.items():
            if place in self._changed:
                continue  # it changed meanwhile, or all are sent again: this confirmation may be outdated
            if place in self._tracked:
                self._confirmed.add(place)
            elif place in self._known:
                del self._known[place]
                self._ended.append((now, place, held))
            event = self._settled.pop(place, None)
            if event is not None:
                event.set()
        self._forget_ended()

    def _gather(self) -> tuple[dict[Place, bool], dict[str, Change], list[Argument]]:
        """The next changes: by their places, as messages for the views, and as arguments for the hashes."""
        batch: dict[Place, bool] = {}
        changes: dict[str, Change] = {}
        numbers: dict[str, int] = {}  # of the groups among the keys of the command
        rows: list[Argument] = []
        size = 0
        while self._changed and len(batch) < BATCH and size < BATCH_BYTES:
            place = group, ref = next(iter(self._changed))
            held = batch[place] = self._changed.pop(place)
            tracking = self._tracked.get(place)
            if tracking is None and place not in self._known:
                continue  # it has begun and ended before Redis got it
            change = changes.setdefault(group, Change())
            blob = b""
            if tracking is not None:
                blob = self._codec.pack(PRESENCE, group, {"key": tracking.key, "meta": tracking.meta})
                self._known[place] = None  # from here on Redis may have it, even if the answer is lost
                change.joins.append((ref, tracking.key, tracking.meta))
            else:
                (change.held if held else change.leaves).append(ref)
            rows += (numbers.setdefault(group, len(numbers) + 2), ref, blob)
            size += len(blob)
        return batch, changes, rows

    def _forget_ended(self) -> None:
        since = trio.current_time() - self._keys.lease_ms / 1000
        while self._ended and self._ended[0][0] < since:
            self._ended.popleft()

    async def _send(self, changes: dict[str, Change], rows: list[Argument]) -> None:
        await self._call(changes, rows)
        failures: list[ChannelLayerUnavailable] = []
        async with trio.open_nursery() as nursery:  # so that the pipeline sends them together
            for group, change in changes.items():
                nursery.start_soon(self._tell, group, change, failures)
        if failures:
            raise failures[0]

    async def _call(self, groups: Iterable[str], rows: Iterable[Argument]) -> list[int]:
        keys = self._keys
        hashes = map(keys.presence, groups)
        empty: list[int] = await self._pipeline.call(
            *PRESENCE_CHANGE(keys.done, *hashes, args=(*keys.stamp(), self._expiry_ms, *rows))
        )
        return empty

    async def _tell(self, group: str, change: Change, failures: list[ChannelLayerUnavailable]) -> None:
        views = presence_group(group)
        message = {"type": CHANGE, "joins": change.joins, "leaves": change.leaves, "held": change.held}
        blob = self._codec.pack(GROUP, views, message)
        try:
            await self._pipeline.call_combined(self._sends, self._sends.part(views, blob), len(blob))
        except ChannelLayerUnavailable as error:
            failures.append(error)

    async def refresh(self) -> None:
        """Renew the presence of groups before Redis forgets it, until cancelled. Send again where it is missing."""
        while True:
            await trio.sleep(self._expiry_ms / 3000)
            groups = list(dict.fromkeys(group for group, _ in self._tracked))
            for start in range(0, len(groups), BATCH):
                part = groups[start : start + BATCH]
                try:
                    empty = {part[number] for number in await self._call(part, ())}
                except ChannelLayerUnavailable:
                    continue  # the pipeline logs an outage; when the reader attaches again, all are sent again
                self._changed |= {place: False for place in self._tracked if place[0] in empty}
                self._wakeup.set()

    async def quit(self) -> None:
        """End all trackings, and tell the watchers. The leaves are held back: the clients may come again elsewhere."""
        for place in (*self._known, *self._tracked):
            self._changed.setdefault(place, True)
        self._tracked.clear()
        while self._changed:
            await self._send_some()


class RedisPresence:
    """The other processes; see :class:`~trio_channels.layers.presence.table.Backend`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<RedisPresence of {self._session!r}>"

    def as_read(self, meta: Meta) -> Meta:
        """See Backend."""
        return self._session.codec.round_trip(meta)

    def changed(self, group: str, change: Change) -> None:
        """See Backend."""
        tracked = self._session.presence.tracked.get(group, {})
        ended = {(group, ref): False for ref in change.leaves} | {(group, ref): True for ref in change.held}
        sync = self._session.shard_for(presence_group(group)).presence
        sync.changed((tracked[ref] for ref, _, _ in change.joins), ended)

    async def settle(self, group: str, ref: str) -> None:
        """See Backend. Cancellation: the tracking stands."""
        await self._session.shard_for(presence_group(group)).presence.settle((group, ref))

    def opened(self, view: View) -> None:
        """See Backend."""
        self._session.shard_for(presence_group(view.group)).views.open(view)

    def closed(self, view: View) -> None:
        """See Backend."""
        self._session.shard_for(presence_group(view.group)).views.close(view)

    async def load(self, view: View) -> None:
        """See Backend. Cancellation: nothing changes."""
        await self._session.shard_for(presence_group(view.group)).views.wait_until_loaded(view)

    async def read(self, group: str) -> Mapping[str, Found]:
        """See Backend. Cancellation: nothing changes."""
        return await self._session.shard_for(presence_group(group)).views.read(group)

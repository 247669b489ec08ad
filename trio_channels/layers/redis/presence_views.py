"""Keeps the views of one shard up to date: with messages of other processes, and with what Redis has.

The rules:

- A view is a member of its group's :func:`~trio_channels.layers.names.presence_group` first, and reads the hash then.
  A message that comes meanwhile counts more than what was read.
- After a gap the hash is read again. New trackings join at once. Missing ones leave one lease later, if they are still
  missing: a Redis that has lost its data gets them again from their processes, one after the other.
- A process is dead if its inbox is gone at two looks in a row, and no message of it came between. Its trackings leave.
  Nobody is taken for dead while this process has no inbox of its own, and within one lease of a gap.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial

import msgspec
import trio

from ..._concurrency.wakeup import Wakeup
from ...exceptions import ChannelLayerUnavailable
from ..hub import Hub
from ..mailbox import Mailbox
from ..message import Counters, Envelope
from ..names import presence_group
from ..presence.table import Found
from ..presence.view import Change, View
from .codec import PRESENCE, EntryCodec, UndecodableEntry
from .keys import ShardKeys
from .memberships import Memberships
from .pipeline import Pipeline
from .scripts import PRESENCE_DEAD, PRESENCE_FORGET

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds between two looks for dead processes.
SWEEP = 0.5
#: Trackings that are read or deleted at a time, so that Redis serves others between.
PART = 500


class _Follower:
    """A view, and the mailbox through which it gets its messages."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.mailbox: Mailbox
        self.load_at = -math.inf  # when to read the hash
        self.is_loading = False
        # References whose end was told since the hash is being read.
        self.ended: set[str] = set()

    def __repr__(self) -> str:
        return f"<Follower of {self.view!r}>"


class PresenceViews:
    """The views of one shard."""

    def __init__(
        self,
        *,
        keys: ShardKeys,
        pipeline: Pipeline,
        memberships: Memberships,
        hub: Hub,
        codec: EntryCodec,
        timeout: float,
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._memberships = memberships
        self._hub = hub
        self._codec = codec
        self._timeout = timeout
        self._lease = keys.lease_ms / 1000
        self._followers: dict[str, _Follower] = {}
        self._heard: dict[str, int] = {}  # process -> number of messages of it
        self._patient_until = -math.inf
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        return f"<PresenceViews: {len(self._followers)} views>"

    # -- views ------------------------------------------------------------------------------------------------------

    def open(self, view: View) -> None:
        """Begin to keep a view up to date."""
        follower = self._followers[view.group] = _Follower(view)
        follower.mailbox = self._hub.open(
            Mailbox(
                presence_group(view.group),
                capacity=1,
                overflow="drop_newest",
                counters=Counters(),
                ring=partial(self._see_gap, follower),
                offer=partial(self._take, follower),
            )
        )
        self._wakeup.set()

    def close(self, view: View) -> None:
        """End it."""
        self._hub.close(self._followers.pop(view.group).mailbox)

    async def wait_until_loaded(self, view: View) -> None:
        """Wait until a view is complete, or raise ChannelLayerUnavailable."""
        if view.loaded.is_set():
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(self._timeout):
            await view.loaded.wait()
            return
        raise ChannelLayerUnavailable(
            f"Redis did not tell within {self._timeout:g} seconds who is in {view.group!r}; {self._pipeline.state}"
        )

    def _take(self, follower: _Follower, envelope: Envelope) -> bool:
        try:
            change = msgspec.convert(envelope.message, Change)
        except msgspec.ValidationError as error:
            logger.error("%s: a message about the presence of %r is skipped: %s", self, follower.view.group, error)
            return True
        ended = (*change.leaves, *change.held)
        processes = {_process_of(ref) for ref in (*ended, *(ref for ref, _, _ in change.joins))}
        for process in processes:
            self._heard[process] = self._heard.get(process, 0) + 1
        if self._keys.process not in processes:  # the table has told the view already
            follower.ended.update(ended)
            follower.view.apply(change)
        return True

    def _see_gap(self, follower: _Follower) -> None:
        while follower.mailbox.get_nowait() is not None:
            pass
        self._patient_until = trio.current_time() + self._lease
        follower.load_at = -math.inf
        self._wakeup.set()

    # -- reading the hash -------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Read the hashes of the views that must be read, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                idle = [follower for follower in self._followers.values() if not follower.is_loading]
                for follower in idle:
                    if follower.load_at <= trio.current_time():
                        follower.is_loading = True
                        nursery.start_soon(self._try_to_load, follower)
                times = (follower.load_at for follower in idle if not follower.is_loading)
                with trio.move_on_at(min(times, default=math.inf)):
                    await self._wakeup.wait()

    async def _try_to_load(self, follower: _Follower) -> None:
        loaded = False
        try:
            await self._load(follower)
            loaded = True
        except ChannelLayerUnavailable as error:
            logger.debug("%s: %s is not read yet: %s", self._pipeline.name, follower, error)
            await trio.sleep(self._timeout / 10)
        finally:
            if not loaded:  # also after a cancellation or a crash
                follower.load_at = -math.inf
            follower.is_loading = False
            self._wakeup.set()

    async def _load(self, follower: _Follower) -> None:
        view = follower.view
        certain = trio.current_time() >= self._patient_until
        follower.load_at = math.inf if certain else self._patient_until
        group = presence_group(view.group)
        if not self._is_open(follower):
            return
        if group not in follower.mailbox.groups:
            self._hub.join(group, follower.mailbox)
        await self._memberships.wait_until_joined(group)
        follower.ended.clear()
        before = set(view.entries)
        found = await self.read(view.group)
        if not self._is_open(follower):
            return
        change = Change()
        for ref, other in found.items():
            if ref not in view.entries and ref not in follower.ended:
                change.joins.append((ref, other.key, other.meta))
        if certain:
            change.leaves += (ref for ref in before if ref not in found and _process_of(ref) != self._keys.process)
        follower.ended.clear()
        view.apply(change)
        view.loaded.set()

    def _is_open(self, follower: _Follower) -> bool:
        return self._followers.get(follower.view.group) is follower

    async def read(self, group: str) -> dict[str, Found]:
        """The trackings of a group by other processes that live, by reference. Cancellation: nothing changes."""
        blobs: dict[str, bytes] = {}
        cursor: bytes | int = 0
        while True:
            cursor, pairs = await self._pipeline.call("HSCAN", self._keys.presence(group), cursor, "COUNT", PART)
            # Somebody else may have written anything there.
            blobs.update(
                (ref.decode(errors="replace"), blob) for ref, blob in zip(pairs[::2], pairs[1::2], strict=True)
            )
            if int(cursor) == 0:
                break
        processes = {_process_of(ref) for ref in blobs} - {self._keys.process}
        dead = set(await self._dead(list(processes)))
        found: dict[str, Found] = {}
        for ref, blob in blobs.items():
            if _process_of(ref) in processes - dead and (tracking := self._unpack(group, ref, blob)) is not None:
                found[ref] = tracking
        for process in dead:
            await self._forget(group, process, [ref for ref in blobs if _process_of(ref) == process])
        return found

    def _unpack(self, group: str, ref: str, blob: bytes) -> Found | None:
        try:
            payload = self._codec.unpack(blob)
            if (payload.kind, payload.name) != (PRESENCE, group):
                raise UndecodableEntry(f"it is of {payload.name!r}")
            return msgspec.convert(payload.message, Found)
        except (UndecodableEntry, msgspec.ValidationError) as error:
            logger.error("%s: tracking %s of %r is skipped: %s", self._pipeline.name, ref, group, error)
            return None

    # -- dead processes ---------------------------------------------------------------------------------------------

    async def _dead(self, processes: list[str]) -> list[str]:
        if not processes:
            return []
        inboxes = [f"{self._keys.inboxes}{process}" for process in processes]
        dead = await self._pipeline.call(*PRESENCE_DEAD(self._keys.inbox, *inboxes))
        if dead is None:
            raise ChannelLayerUnavailable(f"{self._pipeline.name} has no inbox of this process yet; try again")
        return [processes[number] for number in dead]

    async def _forget(self, group: str, process: str, refs: list[str]) -> None:
        """Delete the trackings of a dead process."""
        for start in range(0, len(refs), PART):
            part = tuple(refs[start : start + PART])
            await self._pipeline.call(
                *PRESENCE_FORGET(f"{self._keys.inboxes}{process}", self._keys.presence(group), args=part)
            )

    async def sweep(self) -> None:
        """Look for dead processes, and end their trackings, until cancelled."""
        suspects: Mapping[str, int] = {}
        while True:
            await trio.sleep(min(SWEEP, self._lease / 4))
            try:
                suspects = await self._look(suspects)
            except ChannelLayerUnavailable:
                suspects = {}  # the pipeline logs an outage

    async def _look(self, suspects: Mapping[str, int]) -> Mapping[str, int]:
        """Look once. The result is for the next time: processes without an inbox, and the numbers of their messages."""
        processes = {_process_of(ref) for it in self._followers.values() for ref in it.view.entries}
        heard = {process: self._heard.get(process, 0) for process in processes - {self._keys.process}}
        self._heard = dict(heard)
        dead = await self._dead(list(heard))
        if trio.current_time() < self._patient_until:
            return {}
        confirmed = {process for process in dead if suspects.get(process) == self._heard.get(process)}
        ended: dict[tuple[str, str], list[str]] = {}
        for group, follower in self._followers.items() if confirmed else ():
            gone = [ref for ref in follower.view.entries if _process_of(ref) in confirmed]
            follower.view.apply(Change(leaves=gone))
            for ref in gone:
                ended.setdefault((group, _process_of(ref)), []).append(ref)
        for (group, process), refs in ended.items():
            await self._forget(group, process, refs)
        return {process: heard[process] for process in dead if process not in confirmed}


def _process_of(ref: str) -> str:
    return ref.partition(".")[0]

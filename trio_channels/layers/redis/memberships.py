"""Tells Redis in which groups of a shard this process has members. The local tables are the truth, Redis is a copy.

The rules:

- A membership of this process lasts from a group's first local member to its last. Each has a number, its *generation*.
- Redis keeps the generation with the membership, and adds it to each message for this process.
- A message of an older generation is not delivered: Redis may have carried out the leave, and so have missed messages
  behind it, before it carried out the next join. So a member gets everything from its first message on.
- Redis gets joins and leaves in their order, and skips one that comes late: an old leave never ends a newer membership.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import trio

from ..._concurrency.wakeup import Wakeup
from ...exceptions import ChannelLayerUnavailable
from ..hub import Hub
from .connection import CommandRefused
from .keys import GROUP_LEASES, ShardKeys
from .pipeline import Pipeline
from .scripts import GROUP_ADD, GROUP_DISCARD

logger = logging.getLogger("trio_channels.layers.redis")

#: Most groups in one command.
BATCH = 500


class Memberships:
    """The groups that Redis may know, those it has confirmed, and the changes that it must be told."""

    def __init__(
        self,
        *,
        keys: ShardKeys,
        pipeline: Pipeline,
        hub: Hub,
        mine: Callable[[str], bool],
        timeout: float,
        on_forgotten: Callable[[list[str]], None],
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._hub = hub
        self._mine = mine
        self._timeout = timeout
        self._on_forgotten = on_forgotten  # called with groups whose members may have missed messages
        self._expiry_ms = GROUP_LEASES * keys.lease_ms
        self._known: set[str] = set()
        self._confirmed: set[str] = set()
        self._standing: set[str] = set()  # groups in which Redis must still have this generation
        self._changed: dict[str, None] = {}
        self._joined: dict[str, trio.Event] = {}
        self._generations: dict[str, bytes] = {}  # of the groups with local members
        self._next_generation = itertools.count(1)
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        return f"<Memberships: Redis knows of {len(self._known)}, {len(self._changed)} changes wait>"

    @property
    def settled(self) -> bool:
        """Whether Redis has confirmed every change."""
        return not self._changed and not self._joined and self._known == self._confirmed

    async def wait_until_joined(self, group: str) -> None:
        """Wait until Redis knows of this process, or raise ChannelLayerUnavailable; the membership stands then too."""
        if group in self._confirmed:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        event = self._joined.setdefault(group, trio.Event())
        with trio.move_on_after(self._timeout):
            await event.wait()
            return
        raise ChannelLayerUnavailable(
            f"Redis did not confirm within {self._timeout:g} seconds that this process joined {group!r}; "
            f"{self._pipeline.state}"
        )

    def change(self, group: str) -> None:
        """Note that a group has got its first local member, or lost its last."""
        if group in self._hub.groups:
            self._generations[group] = b"%d" % next(self._next_generation)
        else:
            del self._generations[group]
        self._standing.discard(group)
        self._changed[group] = None
        self._confirmed.discard(group)
        self._wakeup.set()

    def is_current(self, group: str, generation: bytes) -> bool:
        """Whether a message to that group was sent to the membership that this process has now."""
        return self._generations.get(group) == generation

    def send_all_again(self) -> None:
        """Send all memberships again, as Redis may have lost them."""
        self._confirmed.clear()
        self._standing.clear()
        self._changed.update(dict.fromkeys(self._known))
        self._changed.update((group, None) for group in self._hub.groups if self._mine(group))
        self._wakeup.set()

    async def sync(self) -> None:
        """Send changes to Redis until cancelled."""
        while True:
            batch = list(self._changed)[:BATCH]
            if not batch:
                await self._wakeup.wait()
                continue
            for group in batch:
                del self._changed[group]
            sent = False
            try:
                await self._send(batch)
                sent = True
            except ChannelLayerUnavailable as error:
                # The pipeline logs an outage, once.
                level = logging.WARNING if isinstance(error, CommandRefused) else logging.DEBUG
                logger.log(level, "%s: Redis did not take memberships, trying again: %s", self._pipeline.name, error)
            finally:
                if not sent:  # also after a cancellation or a crash
                    self._changed = {**dict.fromkeys(batch), **self._changed}
            if not sent:
                await trio.sleep(self._timeout / 10)

    async def _send(self, batch: list[str]) -> None:
        joining = [group for group in batch if group in self._hub.groups]
        leaving = [group for group in batch if group not in self._hub.groups and group in self._known]
        self._known.update(joining)  # from here on Redis may know them, even if the answer is lost
        if joining:
            done, *groups = self._keys.for_groups(joining)
            new = await self._pipeline.call(*GROUP_ADD(done, self._keys.inbox, *groups, args=self._arguments(joining)))
            self._begin_again([joining[place] for place in new if joining[place] in self._standing])
        if leaving:
            await self._pipeline.call(*GROUP_DISCARD(*self._keys.for_groups(leaving), args=self._keys.stamp()))
        self._known.difference_update(leaving)
        for group in batch:
            if group in self._changed:
                continue  # it changed meanwhile, or all are sent again: this confirmation may be outdated
            if group in self._known:
                self._confirmed.add(group)
                self._standing.add(group)
            event = self._joined.pop(group, None)
            if event is not None:
                event.set()

    def _arguments(self, groups: list[str]) -> tuple[str | int | bytes, ...]:
        return (*self._keys.stamp(), self._expiry_ms, *(self._generations[group] for group in groups))

    def _begin_again(self, groups: list[str]) -> None:
        """Give memberships that Redis had lost a new generation, and report the messages that may be missing."""
        # Not where the message before the loss stands in the inbox, as nobody knows: the rest of the old generation is
        # not delivered.
        for group in groups:
            logger.warning("%s: Redis had forgotten that this process is in the group %r", self._pipeline.name, group)
            self.change(group)
        if groups:
            self._on_forgotten(groups)

    async def refresh(self) -> None:
        """Renew the memberships before Redis forgets them, until cancelled."""
        while True:
            await trio.sleep(self._expiry_ms / 3000)
            self._changed.update(dict.fromkeys(self._known))
            self._wakeup.set()

    async def quit_all(self) -> None:
        """Remove this process from every group in which Redis may know it."""
        groups = list(self._known)
        for start in range(0, len(groups), BATCH):
            keys = self._keys.for_groups(groups[start : start + BATCH])
            await self._pipeline.call(*GROUP_DISCARD(*keys, args=self._keys.stamp()))

"""The part of every channel layer inside a process: mailboxes, subscriptions and their clean-up."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Unpack

import trio

from .._asgi.protocol import Message
from .._limits import Overflow
from ..exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from . import names
from .base import ChannelLayer, LayerOptions, LayerStatistics
from .history import NO_HISTORY, Recovery, position_of
from .hub import Hub
from .joining import outcome_of_join
from .mailbox import Mailbox
from .message import Counters, Envelope, Gap, Place
from .presence.local import LocalPresence
from .subscription import Subscription


class LocalDelivery(LocalPresence, ChannelLayer):
    """The base of all channel layers: delivers within one process.

    One layer object may be used from several Trio runs in one process, such as a live server in a thread and a test in
    another. Each run has a hub of its own; tasks and mailboxes are changed from their own run only.
    """

    #: Whether this process has ever had a receiver, or an open layer for one.
    _serves = False

    extensions = ("groups", "flush", "history")

    def __init__(self, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self._hubs: dict[trio.lowlevel.TrioToken, Hub] = {}

    def _hub(self) -> Hub:
        """This Trio run's hub."""
        token = trio.lowlevel.current_trio_token()
        hub = self._hubs.get(token)
        if hub is None:
            for other in self._all_hubs():
                self._is_running(other)  # forgets the hubs of ended runs
            hub = self._hubs[token] = Hub()
            hub.capacity_of = self.get_capacity
        return hub

    def _all_hubs(self) -> list[Hub]:
        """The hubs of all runs; a copy, as other threads may add theirs."""
        return list(self._hubs.values())

    def _is_running(self, hub: Hub) -> bool:
        """Whether a hub's run has not ended; forgets the hub of an ended run."""
        return self._in_run_of(hub, lambda: None)

    def _in_run_of(self, hub: Hub, function: Callable[[], object]) -> bool:
        """Schedule a call in another run. If that run has ended, forget its hub and return False."""
        try:
            if hub.process != os.getpid():  # in a forked child the runs of its parent have ended
                raise trio.RunFinishedError  # pragma: no cover - in forked children
            hub.token.run_sync_soon(function)
        except trio.RunFinishedError:
            self._hubs.pop(hub.token, None)
            return False
        return True

    def _ownerless(self, channel: str) -> Mailbox:
        """This run's mailbox of that name, made if there is none. Also closes unused ownerless mailboxes."""
        hub = self._hub()
        hub.forget_unused(expiry=self.expiry, group_expiry=self.group_expiry)
        mailbox = hub.ownerless(channel, self.get_capacity(channel))
        mailbox.last_used = trio.current_time()
        return mailbox

    def _healthy(self) -> bool:
        """Whether the layer works. May be called in any thread."""
        return True

    def _internal(self, hub: Hub) -> int:
        """The number of mailboxes that belong to the layer itself. May be called in any thread."""
        return 0

    def _process_mark(self) -> str:
        """The part of channel names that names this process: between the prefix and the ``!``."""
        return ""

    def _envelope(
        self, message: Message, exclude: frozenset[str] = frozenset(), place: Place | None = None
    ) -> Envelope:
        return Envelope(message, trio.current_time() + self.expiry, exclude, place)

    def _is_member(self, hub: Hub, group: str, channel: str, since: object) -> bool:
        """Whether a channel is a member already; raises InvalidChannelLayerError if it cannot get missed messages."""
        if not hub.is_member(group, channel):
            return False
        if since is not None:
            raise InvalidChannelLayerError(
                f"{channel!r} is a member of {group!r} already, and may have got what it missed: give since when it "
                f"joins, and leave the group out of the attribute groups of its consumer"
            )
        return True

    def _join_plainly(self, hub: Hub, group: str, mailbox: Mailbox, since: object) -> None:
        """Make a mailbox a member without the messages that it has missed."""
        hub.join(group, mailbox)
        if (gap := outcome_of_join(hub.counters, since, NO_HISTORY)) is not None:
            mailbox.put_gap(gap)

    def open_mailbox(
        self,
        *,
        ring: Callable[[], None] | None = None,
        offer: Callable[[Envelope], bool] | None = None,
        overflow: Overflow | None = None,
        prefix: str = "specific",
    ) -> AbstractContextManager[Mailbox]:
        """See :meth:`ChannelLayer.open_mailbox`."""
        self._serves = True
        hub = self._hub()
        name = names.new_channel_name(prefix, self._process_mark())
        return hub.opened(
            Mailbox(
                name,
                capacity=self.get_capacity(name),
                overflow=overflow or self.overflow,
                counters=hub.counters,
                ring=ring,
                offer=offer,
            )
        )

    @asynccontextmanager
    async def subscribe(
        self,
        *groups: str,
        overflow: Overflow | None = None,
        since: str | Mapping[str, str | None] | None = None,
    ) -> AsyncIterator[Subscription]:
        """See :meth:`ChannelLayer.subscribe`. Cancellation: a cancelled iteration loses no message."""
        positions = position_of(since, groups)
        with self.open_mailbox(overflow=overflow, prefix="subscriber") as mailbox:
            mailbox.subscriber = trio.lowlevel.current_task()
            recovery = {
                group: await self._join_since(group, mailbox.name, positions.get(group))
                for group in dict.fromkeys(groups)
            }
            yield Subscription(mailbox, recovery)

    async def _join_since(self, group: str, channel: str, since: str | None) -> Recovery:
        # A subclass of somebody else may override group_add() without the argument.
        return await (self.group_add(group, channel) if since is None else self.group_add(group, channel, since=since))

    def mailboxes_here(self, *, channel: str = "", group: str = "") -> list[Mailbox]:
        """See :meth:`ChannelLayer.mailboxes_here`."""
        hub = self._hubs.get(trio.lowlevel.current_trio_token())
        if hub is None:
            return []
        named = hub.mailboxes.get(channel)
        # By name: a stand-in may be in the group's table while its mailbox is joining.
        members = [hub.mailboxes[name] for name in hub.groups.get(group, {}) if name in hub.mailboxes]
        return [*members, *([] if named is None else [named])]

    def groups_here(self) -> dict[str, int]:
        """See :meth:`ChannelLayer.groups_here`."""
        hub = self._hubs.get(trio.lowlevel.current_trio_token())
        groups = {} if hub is None else hub.groups
        return {group: len(members) for group, members in groups.items() if names.is_public(group)}

    async def new_channel(self, prefix: str = "specific") -> str:
        """See :meth:`ChannelLayer.new_channel`. Cancellation: atomic; a cancelled call makes no channel."""
        name = names.new_reply_channel_name(prefix, self._process_mark(), self._hub().mark)
        await trio.lowlevel.checkpoint()
        self._serves = True
        self._ownerless(name)
        return name

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. Cancellation: loses no message."""
        names.check_channel_name(channel)
        self._serves = True
        mailbox = self._ownerless(channel)
        with self._hub().receiving(mailbox):
            while True:
                try:
                    item = await mailbox.get()
                except trio.EndOfChannel:
                    raise ChannelLayerUnavailable(
                        f"channel {channel!r} ended while a task was receiving on it"
                    ) from None
                if not isinstance(item, Gap):
                    return item

    async def close(self) -> None:
        """See :meth:`ChannelLayer.close`. Cancellation: atomic; a cancelled call has closed nothing."""
        await trio.lowlevel.checkpoint()
        self._hub().close_ownerless()

    def statistics(self) -> LayerStatistics:
        """An immutable snapshot."""
        hubs = self._all_hubs()
        return LayerStatistics(
            channels=sum(
                len(hub.mailboxes) - self._internal(hub) - len(hub.groups.get(names.ORDERS, ())) for hub in hubs
            ),
            groups=len({group for hub in hubs for group in list(hub.groups) if names.is_public(group)}),
            memberships=sum(
                len(members) for hub in hubs for group, members in list(hub.groups.items()) if names.is_public(group)
            ),
            waiting=sum(mailbox.statistics().waiting for hub in hubs for mailbox in list(hub.mailboxes.values())),
            tracked=sum(hub.presence.count() for hub in hubs if hub.presence is not None),
            healthy=self._healthy(),
            **{row.name: sum(getattr(hub.counters, row.name) for hub in hubs) for row in dataclasses.fields(Counters)},
        )

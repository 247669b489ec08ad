"""The part of every channel layer inside a process: mailboxes, subscriptions and their clean-up."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Unpack

import trio

from .._asgi.protocol import Message
from .._limits import Overflow
from ..exceptions import ChannelLayerUnavailable, MailboxOverflow
from . import names
from .base import ChannelLayer, LayerOptions, LayerStatistics
from .hub import Hub
from .mailbox import Mailbox
from .message import Counters, Envelope, Gap
from .presence.local import LocalPresence


class Subscription:
    """The messages of a :meth:`~trio_channels.layers.base.ChannelLayer.subscribe` block, as an async iterator."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        mailbox.end = _end_of_subscription

    def __repr__(self) -> str:
        return f"<Subscription to {sorted(self._mailbox.groups)} through {self._mailbox!r}>"

    def __aiter__(self) -> Subscription:
        return self

    def __anext__(self) -> Awaitable[Message | Gap]:
        # Not a coroutine function: that would be one more coroutine to resume per subscriber and message.
        mailbox = self._mailbox
        if mailbox.overflowed:
            raise MailboxOverflow(
                f"a subscriber fell more than {mailbox.capacity} messages behind: read faster, subscribe with "
                f"overflow='drop_oldest' or 'drop_newest', or raise the layer's capacity"
            )
        return mailbox


def _end_of_subscription(failure: str | None) -> Exception:
    if failure is None:
        return StopAsyncIteration()
    return ChannelLayerUnavailable(f"the channel layer is broken: {failure}")


class LocalDelivery(LocalPresence, ChannelLayer):
    """The base of all channel layers: delivers within one process.

    One layer object may be used from several Trio runs in one process, such as a live server in a thread and a test in
    another. Each run has a hub of its own; tasks and mailboxes are changed from their own run only.
    """

    #: Whether this process has ever had a receiver, or an open layer for one.
    _serves = False

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
        hub.forget_unused(self.group_expiry)
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

    def _envelope(self, message: Message, exclude: frozenset[str] = frozenset()) -> Envelope:
        return Envelope(message, trio.current_time() + self.expiry, exclude)

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
        self, *groups: str, overflow: Overflow | None = None
    ) -> AsyncIterator[AsyncIterator[Message | Gap]]:
        """See :meth:`ChannelLayer.subscribe`. Cancellation: a cancelled iteration loses no message."""
        with self.open_mailbox(overflow=overflow, prefix="subscriber") as mailbox:
            for group in groups:
                await self.group_add(group, mailbox.name)
            yield Subscription(mailbox)

    async def new_channel(self, prefix: str = "specific") -> str:
        """See :meth:`ChannelLayer.new_channel`. Cancellation: atomic; a cancelled call makes no channel."""
        name = names.new_channel_name(prefix, self._process_mark())
        await trio.lowlevel.checkpoint()
        self._serves = True
        self._ownerless(name)
        return name

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. Cancellation: loses no message."""
        names.check_channel_name(channel)
        self._serves = True
        mailbox = self._ownerless(channel)
        while True:
            try:
                item = await mailbox.get()
            except trio.EndOfChannel:
                raise ChannelLayerUnavailable(f"channel {channel!r} ended while a task was receiving on it") from None
            finally:
                mailbox.last_used = trio.current_time()
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
            channels=sum(len(hub.mailboxes) - self._internal(hub) for hub in hubs),
            groups=len({group for hub in hubs for group in list(hub.groups) if names.is_public(group)}),
            memberships=sum(
                len(members) for hub in hubs for group, members in list(hub.groups.items()) if names.is_public(group)
            ),
            waiting=sum(mailbox.statistics().waiting for hub in hubs for mailbox in list(hub.mailboxes.values())),
            tracked=sum(hub.presence.count() for hub in hubs if hub.presence is not None),
            healthy=self._healthy(),
            **{row.name: sum(getattr(hub.counters, row.name) for hub in hubs) for row in dataclasses.fields(Counters)},
        )

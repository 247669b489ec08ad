"""What every channel layer does inside a process: mailboxes, subscriptions and their clean-up."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Unpack

import trio

from .._asgi.protocol import Message
from .._limits import Overflow
from ..exceptions import ChannelLayerUnavailable, InvalidNameError, MailboxOverflow
from . import names
from .base import ChannelLayer, LayerOptions, LayerStatistics
from .counters import Counters
from .envelope import Envelope
from .gap import Gap
from .hub import Hub, random_channel_name
from .mailbox import Mailbox


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
        # A coroutine function would be one more to wake for each subscriber of a group, with each message.
        mailbox = self._mailbox
        if mailbox.overflowed:
            raise MailboxOverflow(
                f"a subscriber fell more than {mailbox.capacity} messages behind; read faster, subscribe with "
                f"overflow='drop_oldest' or 'drop_newest', or give the layer more capacity"
            )
        return mailbox


def _end_of_subscription(failure: str | None) -> Exception:
    if failure is None:
        return StopAsyncIteration()
    return ChannelLayerUnavailable(f"the channel layer is broken: {failure}")


class LocalDelivery(ChannelLayer):
    """The half of a channel layer that delivers within one process.

    One layer object may be used from several Trio runs in one process (a live server in a thread, a test in another):
    each run has a hub of its own, and a task or mailbox is only ever touched from its own run.
    """

    def __init__(self, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self._hubs: dict[trio.lowlevel.TrioToken, Hub] = {}

    def _hub(self) -> Hub:
        """This Trio run's hub."""
        token = trio.lowlevel.current_trio_token()
        hub = self._hubs.get(token)
        if hub is None:
            self._forget_ended_runs()
            hub = self._hubs[token] = Hub()
        return hub

    def _all_hubs(self) -> list[Hub]:
        """The hubs of every run; a copy, as other threads add theirs."""
        return list(self._hubs.values())

    def _forget_ended_runs(self) -> None:
        for hub in self._all_hubs():
            self._in_run_of(hub, _nothing)

    def _in_run_of(self, hub: Hub, function: Callable[[], object]) -> bool:
        """Have `function` called in another run, soon; or forget the hub, and return False, if that run has ended.

        For a forked child the runs of its parent have.
        """
        try:
            if hub.process != os.getpid():
                raise trio.RunFinishedError  # pragma: no cover - in forked children
            hub.token.run_sync_soon(function)
        except trio.RunFinishedError:
            self._hubs.pop(hub.token, None)
            return False
        return True

    def _ownerless(self, channel: str) -> Mailbox:
        """This run's mailbox of that name, made if there is none; those that nobody uses are forgotten on the way."""
        hub = self._hub()
        hub.forget_unused(self.group_expiry)
        mailbox = hub.ownerless(channel, self.get_capacity(channel))
        mailbox.last_used = trio.current_time()
        return mailbox

    def _healthy(self) -> bool:
        """Whether the layer can be used. May be asked in any thread."""
        return True

    def _process_mark(self) -> str:
        """What stands between the prefix and the ``!`` of this process' channel names."""
        return ""

    def _envelope(self, message: Message) -> Envelope:
        return Envelope(message, trio.current_time() + self.expiry)

    # -- mailboxes ------------------------------------------------------------------------------------------------

    def open_mailbox(
        self,
        *,
        ring: Callable[[], None] | None = None,
        offer: Callable[[Envelope], bool] | None = None,
        overflow: Overflow | None = None,
        prefix: str = "specific",
    ) -> AbstractContextManager[Mailbox]:
        hub = self._hub()
        name = _new_name(prefix, self._process_mark())
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
        with self.open_mailbox(overflow=overflow, prefix="subscriber") as mailbox:
            for group in groups:
                await self.group_add(group, mailbox.name)
            yield Subscription(mailbox)

    async def new_channel(self, prefix: str = "specific") -> str:
        name = _new_name(prefix, self._process_mark())
        await trio.lowlevel.checkpoint()
        self._ownerless(name)
        return name

    async def receive(self, channel: str) -> Message:
        names.check_channel_name(channel)
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

    # -- the layer itself -----------------------------------------------------------------------------------------

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self._hub().close_ownerless()

    def statistics(self) -> LayerStatistics:
        hubs = self._all_hubs()
        return LayerStatistics(
            channels=sum(len(hub.mailboxes) for hub in hubs),
            groups=len({group for hub in hubs for group in list(hub.groups)}),
            memberships=sum(len(members) for hub in hubs for members in list(hub.groups.values())),
            waiting=sum(mailbox.statistics().waiting for hub in hubs for mailbox in list(hub.mailboxes.values())),
            healthy=self._healthy(),
            **dict(_summed(hub.counters for hub in hubs)),
        )


def _summed(counters: Iterator[Counters]) -> Iterator[tuple[str, int]]:
    rows = list(counters)
    for field in dataclasses.fields(Counters):
        yield field.name, sum(getattr(row, field.name) for row in rows)


def _new_name(prefix: str, process: str) -> str:
    if names.is_group_name(prefix):
        name = random_channel_name(prefix + process)
        if names.is_channel_name(name):
            return name
    raise InvalidNameError(
        f"a channel prefix must be a str of ASCII letters, digits, '-', '_' and '.', at most "
        f"{names.MAX_NAME_LENGTH - len(random_channel_name(process))} of them; got {prefix!r}"
    )


def _nothing() -> None:
    """Asks a run's entry queue whether it still takes calls."""

"""The in-process channel layer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Self, Unpack

import trio

from ..._asgi.protocol import Message
from ...exceptions import ChannelFull
from .. import names
from ..base import LayerOptions, LayerStatistics
from ..history import KEY, NO_HISTORY, History, HistoryRule, Recovery, check_limit, check_unstamped
from ..hub import Hub
from ..identities import Identities
from ..joining import outcome_of_join
from ..mailbox import Mailbox
from ..message import Envelope, round_trip
from ..presence.table import PresenceTable
from ..work import WorkQueue
from .history import KeptMessage, MemoryHistories
from .presence import MemoryPresence
from .tables import Tables
from .work import MemoryWorkQueue

logger = logging.getLogger("trio_channels.layers.memory")


class InMemoryChannelLayer(Tables):
    """Passes messages between the connections of one process.

    For development, tests, and deployments of a single process. The layer needs no opening. Several Trio runs of the
    process may use it at once: ``send`` and ``group_send`` reach the members in all of them.

    A ``group_send`` checks and copies its message once, and then costs one ``put`` per member. A large group gets the
    message in parts, between which other tasks run. Messages sent meanwhile wait for the last part, so that all
    messages within one Trio run have one total order.

    Args: see :class:`~trio_channels.layers.base.ChannelLayer`.

    A named channel (no ``!`` in its name) belongs to the Trio run that used it first.
    """

    def __init__(self, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self._kept = MemoryHistories(self.group_expiry)
        self._work_queues: dict[str, MemoryWorkQueue] = {}
        self._has_warned = False
        self._identities = Identities()

    async def __aenter__(self) -> Self:
        """See :meth:`ChannelLayer.__aenter__`: the layer needs no opening. Cancellation: there is no checkpoint."""
        self._serves = True  # a server opens its layers before its first connection
        return await super().__aenter__()

    async def send(self, channel: str, message: Message) -> None:
        """See :meth:`ChannelLayer.send`. Drops and counts a message to a process-local channel that does not exist.

        Cancellation: atomic; a cancelled call has sent nothing.
        """
        names.check_channel_name(channel)
        copy = round_trip(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._serves:
            self._warn(channel)
        here = self._hub()
        if here.has_turn:
            await here.after_turn(partial(self._send, channel, copy))
        else:
            self._send(channel, copy)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _warn(self, target: str) -> None:
        """Warn, once, that nobody in this process can receive a message, as in a command or a task queue."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "a message to %r was sent in a process that has served no connection: the in-memory layer reaches its "
                "own process only. To send from other processes, use "
                "trio_channels.layers.redis.RedisStreamsChannelLayer (logged once)",
                target,
            )

    def _send(self, channel: str, message: Message) -> None:
        here = self._hub()
        home = self._home_of(channel)
        if home is None and names.is_process_local(channel):
            here.counters.gone += 1
        elif home is None or home is here:
            mailbox = here.mailboxes.get(channel) or self._ownerless(channel)
            if mailbox.full:
                here.counters.full += 1
                raise _full(channel, mailbox.capacity)
            here.counters.sent += 1
            mailbox.put(self._envelope(message))
        else:
            # From here another run's mailbox can only be read: the capacity check is approximate, and the mailbox may
            # end before the message reaches it.
            other = home.mailboxes.get(channel)
            if other is not None and other.statistics().waiting >= other.capacity:
                here.counters.full += 1
                self._in_run_of(home, partial(getattr, other, "full"))  # drops its expired messages
                raise _full(channel, other.capacity)
            self._in_run_of(home, partial(home.in_turn, partial(self._deliver_in_its_run, channel, message)))

    def _deliver_in_its_run(self, channel: str, message: Message) -> None:
        hub = self._hub()
        mailbox = hub.find(channel)
        if mailbox is None or not mailbox.put(self._envelope(message)):
            hub.counters.gone += mailbox is None
        else:
            hub.counters.sent += 1

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. Cancellation: loses no message."""
        names.check_channel_name(channel)
        home = self._home_of(channel)
        if home is not None and home is not self._hub():
            raise names.foreign(channel)
        return await super().receive(channel)

    async def group_add(self, group: str, channel: str, *, since: str | None = None) -> Recovery:
        """See :meth:`ChannelLayer.group_add`. Does nothing for a process-local channel that does not exist.

        Cancellation: atomic; a cancelled call has added nothing.
        """
        names.check_group_name(group)
        names.check_channel_name(channel)
        await trio.lowlevel.checkpoint_if_cancelled()
        home, here = self._home_of(channel), self._hub()
        if home is None and not names.is_process_local(channel):
            home = here
            self._ownerless(channel)
        recovery = NO_HISTORY
        if home is here:
            recovery = self._join(here, group, channel, since)
        elif home is not None:  # the members of other runs get no missed messages
            self._call_in(home, partial(self._join_elsewhere, home, group, channel, since))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return recovery

    def _join(self, hub: Hub, group: str, channel: str, since: str | None) -> Recovery:
        mailbox = hub.find(channel)
        if mailbox is None or self._is_member(hub, group, channel, since):
            return NO_HISTORY
        rule = self._histories.of(group)
        if rule is None:
            self._join_plainly(hub, group, mailbox, since)
            return NO_HISTORY
        with self._kept.lock:
            joining = hub.join_later(group, mailbox)
            found = self._kept.read(group, rule, since)
        missed = [
            Envelope(kept.message, trio.current_time() + self.expiry, place=kept.place, replayed=True)
            for kept in found.messages
            if found.recovered and channel not in kept.exclude
        ]
        recovery = Recovery(found.recovered, since if found.recovered else found.position, len(missed))
        joining.begin(found.newest, missed, outcome_of_join(hub.counters, since, recovery))
        return recovery

    def _join_elsewhere(self, hub: Hub, group: str, channel: str, since: str | None) -> None:
        mailbox = hub.find(channel)
        if mailbox is not None:
            self._join_plainly(hub, group, mailbox, since)

    async def group_discard(self, group: str, channel: str) -> None:
        """See :meth:`ChannelLayer.group_discard`. Cancellation: atomic; a cancelled call has discarded nothing."""
        names.check_group_name(group)
        names.check_channel_name(channel)
        await trio.lowlevel.checkpoint_if_cancelled()
        home = self._home_of(channel)
        if home is not None:
            self._call_in(home, partial(home.leave, group, channel))
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def group_send(self, group: str, message: Message, *, exclude: str | Iterable[str] = ()) -> str | None:
        """See :meth:`ChannelLayer.group_send`.

        Cancellation: atomic; a cancelled call has sent nothing, and a started one sends to all members.
        """
        names.check_group_name(group)
        others = names.check_excluded(exclude)
        copy = round_trip(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._serves:
            self._warn(group)
        here = self._hub()
        if (rule := self._histories.of(group)) is not None:
            check_unstamped(group, copy)
            if here.has_turn or here.is_large(group):
                scheduled = await self._send_kept_in_turn(here, group, copy, others, rule)
            else:
                scheduled = self._keep_and_fan_out(here, group, copy, others, rule)
                await trio.lowlevel.cancel_shielded_checkpoint()
            if scheduled is not None:
                with trio.CancelScope(shield=True):
                    await scheduled.wait()
            position: str = copy[KEY]["position"]
            return position
        if here.is_large(group):
            async with here.turn():
                self._fan_out_elsewhere(here, group, copy, others)
                await here.fan_out_in_parts(group, self._envelope(copy, others))
            return None
        if here.has_turn:
            await here.after_turn(partial(self._fan_out, here, group, copy, others))
        else:
            self._fan_out(here, group, copy, others)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return None

    async def group_send_once(
        self, group: str, message: Message, identity: bytes, *, exclude: str | Iterable[str] = ()
    ) -> None:
        """See :meth:`ChannelLayer.group_send_once`. Cancellation: atomic, as :meth:`group_send`."""
        if identity in self._identities:
            await trio.lowlevel.checkpoint()
            return
        await self.group_send(group, message, exclude=exclude)
        self._identities.add(identity)

    def _fan_out(self, here: Hub, group: str, message: Message, exclude: frozenset[str]) -> None:
        self._fan_out_elsewhere(here, group, message, exclude)
        here.fan_out(group, self._envelope(message, exclude))

    def _fan_out_elsewhere(self, here: Hub, group: str, message: Message, exclude: frozenset[str]) -> None:
        here.counters.group_sent += 1
        if len(self._hubs) > 1:
            for hub in self._all_hubs():
                if hub is not here:
                    self._in_run_of(hub, partial(self._fan_out_in_its_run, hub, group, message, exclude))

    def _fan_out_in_its_run(self, hub: Hub, group: str, message: Message, exclude: frozenset[str]) -> None:
        # The expiry is computed here: each Trio run has a clock of its own.
        hub.in_turn(partial(hub.fan_out, group, self._envelope(message, exclude)))

    async def _send_kept_in_turn(
        self, here: Hub, group: str, message: Message, exclude: frozenset[str], rule: HistoryRule
    ) -> trio.Event | None:
        if not here.is_large(group):
            return await here.after_turn(partial(self._keep_and_fan_out, here, group, message, exclude, rule))
        async with here.turn():
            kept, scheduled = self._keep(here, group, message, exclude, rule)
            if scheduled is None:
                await here.fan_out_in_parts(group, self._envelope(message, exclude, kept.place))
        return scheduled

    def _keep(
        self, here: Hub, group: str, message: Message, exclude: frozenset[str], rule: HistoryRule
    ) -> tuple[KeptMessage, trio.Event | None]:
        """Keep a message. If there are other Trio runs, schedule its delivery in all, and return the event of its end.

        The runs get the messages of a group in the order of their positions.
        """
        here.counters.group_sent += 1
        with self._kept.lock:
            kept = self._kept.keep(group, rule, message, exclude)
            if len(self._hubs) == 1:
                return kept, None
            done = trio.Event()
            for hub in self._all_hubs():
                self._in_run_of(hub, partial(self._deliver_kept, hub, group, kept, done if hub is here else None))
            return kept, done

    def _keep_and_fan_out(
        self, here: Hub, group: str, message: Message, exclude: frozenset[str], rule: HistoryRule
    ) -> trio.Event | None:
        kept, scheduled = self._keep(here, group, message, exclude, rule)
        if scheduled is None:
            here.fan_out(group, self._envelope(message, exclude, kept.place))
        return scheduled

    def _deliver_kept(self, hub: Hub, group: str, kept: KeptMessage, done: trio.Event | None) -> None:
        def deliver() -> None:
            hub.fan_out(group, self._envelope(kept.message, kept.exclude, kept.place))
            if done is not None:
                done.set()

        hub.in_turn(deliver)

    async def history(self, group: str, *, since: str | None = None, limit: int | None = None) -> History:
        """See :meth:`ChannelLayer.history`. Cancellation: nothing is changed."""
        names.check_group_name(group)
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        rule = self._histories.of(group)
        if rule is None:
            return History((), recovered=False, position=None)
        found = self._kept.read(group, rule, since, limit)
        return History(tuple(kept.message.copy() for kept in found.messages), found.recovered, found.position)

    def statistics(self) -> LayerStatistics:
        """An immutable snapshot."""
        histories, kept = self._kept.counts()
        return dataclasses.replace(super().statistics(), histories=histories, kept=kept)

    async def _presence(self) -> tuple[PresenceTable, dict[str, Mailbox]]:
        hub = self._hub()
        if hub.presence is None:
            backend = MemoryPresence(hub, self._all_hubs, self._in_run_of)
            hub.presence = backend.table(self.presence_limits, self.expiry)
        return hub.presence, hub.mailboxes

    def work_queue(self, channel: str) -> WorkQueue:
        """See :meth:`ChannelLayer.work_queue`. Messages that are not done are lost when this process ends."""
        names.check_named_channel(channel)
        self._serves = True
        queue = self._work_queues.get(channel)
        if queue is None:
            queue = self._work_queues[channel] = MemoryWorkQueue(self, channel)
        return queue

    def waiting_in(self, channel: str) -> int:
        """The number of messages that wait in a named channel."""
        home = self._home_of(channel)
        return 0 if home is None else home.mailboxes[channel].statistics().waiting

    async def flush(self) -> None:
        """See :meth:`ChannelLayer.flush`. Cancellation: atomic; a cancelled call has deleted nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._kept.clear()
        for hub in self._all_hubs():
            self._call_in(hub, hub.flush)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<InMemoryChannelLayer {seen.channels} channels, {seen.groups} groups, {seen.waiting} waiting>"

    def _home_of(self, channel: str) -> Hub | None:
        """The hub that holds a channel: this run's if it does, never that of an ended run."""
        here = self._hub()
        if channel in here.mailboxes:
            return here
        mark = names.reply_mark(channel) or None  # of a hub that has made the channel, and may have forgotten it
        homes = (hub for hub in self._all_hubs() if channel in hub.mailboxes or hub.mark == mark)
        return next((hub for hub in homes if self._is_running(hub)), None)

    def _call_in(self, hub: Hub, function: Callable[[], None]) -> None:
        if hub is self._hub():
            function()
        else:
            # In turn: it must not overtake the messages that the caller has sent to that run.
            self._in_run_of(hub, partial(hub.in_turn, function))


def _full(channel: str, capacity: int) -> ChannelFull:
    return ChannelFull(
        f"channel {channel!r} is full: it holds {capacity} messages, its capacity. Send more slowly, or raise the "
        f"capacity in the layer's channel_capacity"
    )

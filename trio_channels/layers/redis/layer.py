"""The Redis Streams channel layer; see :mod:`trio_channels.layers.redis`."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Unpack

import trio

from ..._asgi.protocol import Message
from ..._limits import COUNT, SECONDS, Overflow, Rule
from ...exceptions import ChannelFull, InvalidChannelLayerError
from .. import names
from ..base import LayerOptions, LayerStatistics
from ..history import NO_HISTORY, History, Recovery, check_limit, check_unstamped
from ..subscription import Subscription
from .codec import CHANNEL, GROUP, NAMED, EntryCodec, SerializerFormat, UndecodableEntry
from .elsewhere import JOIN, LEAVE
from .ignored import refuse_hooks, warn_of_options
from .joining import join_with_history
from .scripts import SEND_TO_NAMED, WORK_SCRIPTS
from .session import OpenableLayer, Session, stream_of
from .shard import ShardStatistics
from .topology import parse_topology
from .work_queue import RedisWorkQueue
from .work_source import WorkContext

DEFAULT_HOSTS = ("redis://localhost:6379",)
#: Most messages that wait in the inbox of one process, for all its connections together.
INBOX_CAPACITY = 10_000
#: Most seconds that a call takes.
TIMEOUT = 5.0
#: Seconds for which Redis remembers the messages that a named channel has accepted; several times as long as a command
#: may be sent again.
TOKEN_MEMORY = 60.0

_PREFIX = Rule(
    "a non-empty str without braces",
    lambda value: isinstance(value, str) and value != "" and set("{}").isdisjoint(value),
)
#: Redis counts in milliseconds.
_FINITE = Rule("a finite number of seconds above 0", lambda value: SECONDS.holds(value) and value < float("inf"))


class RedisStreamsChannelLayer(OpenableLayer):
    """Passes messages between the connections of many processes, through Redis Streams.

    Args:
        hosts: a list of servers, each a URI, a (host, port) pair or a dict; one URI; or ``{"cluster": [...]}`` for a
            Redis Cluster. Several servers share the groups.
        prefix: of every key.
        symmetric_encryption_keys: secrets; the first encrypts and signs, all decrypt. It needs ``cryptography``.
        serializer_format: ``msgpack``, or ``json``, which has no bytes: they arrive as base64 text.
        timeout: seconds after which a call raises ChannelLayerUnavailable.
        inbox_capacity: most messages that wait for one process. Further ones are refused, counted, and reported to it
            as a gap.
        random_prefix_length, on_disconnect, on_reconnect: options of channels_redis, ignored with a warning.
        options: see :class:`~trio_channels.layers.base.ChannelLayer`.

    Raises:
        InvalidChannelLayerError: an argument is wrong.

    Open the layer before you use it: a ``ProtocolTypeRouter`` does so at start-up; elsewhere write
    ``async with layer:``. Only in the background run of ``async_to_sync`` it opens itself.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[Any] | dict[str, Any] = DEFAULT_HOSTS,
        prefix: str = "asgi",
        symmetric_encryption_keys: Iterable[str | bytes] | None = None,
        serializer_format: SerializerFormat = "msgpack",
        timeout: float = TIMEOUT,
        inbox_capacity: int = INBOX_CAPACITY,
        random_prefix_length: object = None,
        on_disconnect: object = None,
        on_reconnect: object = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        _PREFIX.require("prefix", prefix, InvalidChannelLayerError)
        for name, seconds in (("timeout", timeout), ("expiry", self.expiry), ("group_expiry", self.group_expiry)):
            _FINITE.require(f"{name} of a channel layer", seconds, InvalidChannelLayerError)
        COUNT.require("inbox_capacity of a channel layer", inbox_capacity, InvalidChannelLayerError)
        self.prefix = prefix
        self.timeout = timeout
        self.inbox_capacity = inbox_capacity
        self._codec = EntryCodec(serializer_format, symmetric_encryption_keys)
        self._topology = parse_topology(hosts, prefix)
        warn_of_options(
            random_prefix_length=random_prefix_length, on_disconnect=on_disconnect, on_reconnect=on_reconnect
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_hooks(cls)

    def __repr__(self) -> str:
        return f"<RedisStreamsChannelLayer {self._topology!r}, open in {len(self._sessions)} Trio runs>"

    def _new_session(self) -> Session:
        return Session(
            topology=self._topology,
            prefix=self.prefix,
            codec=self._codec,
            timeout=self.timeout,
            expiry=self.expiry,
            inbox_capacity=self.inbox_capacity,
            keeps_history=bool(self._histories),
            presence=self.presence_limits,
        )

    def shard_statistics(self) -> tuple[ShardStatistics, ...]:
        """An immutable snapshot of each shard in this Trio run; see :meth:`statistics` for the messages.

        Raises:
            ChannelLayerUnavailable: the layer is not open.
        """
        return tuple(shard.statistics() for shard in self._session().shards)

    def statistics(self) -> LayerStatistics:
        """An immutable snapshot. Only Redis knows how many messages it keeps."""
        statistics = super().statistics()
        return dataclasses.replace(statistics, histories=None, kept=None) if self._histories else statistics

    async def send(self, channel: str, message: Message) -> None:
        """See :meth:`ChannelLayer.send`.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time. If the error says "sent", the message may still
                arrive.

        Cancellation: a message that was not sent is withdrawn; one that was sent may arrive.
        """
        names.check_channel_name(channel)
        session = await self._working_session()
        if names.is_process_local(channel):
            await self._send_to_process(session, channel, message)
        else:
            await self._send_to_named(session, channel, message)

    async def _send_to_process(self, session: Session, channel: str, message: Message) -> None:
        blob = self._codec.pack(CHANNEL, channel, message)
        answer = await session.send_to_process(names.process_of(channel), blob, self.inbox_capacity)
        self._count(session, channel, answer, self.inbox_capacity)

    async def _send_to_named(self, session: Session, channel: str, message: Message) -> None:
        shard = session.shard_for(channel)
        blob = self._codec.pack(NAMED, channel, message)
        capacity = self.get_capacity(channel)
        memory = max(TOKEN_MEMORY, 4 * self.timeout)
        times = (int(seconds * 1000) for seconds in (self.group_expiry, self.expiry, memory))
        answer, expired = await shard.pipeline.call(
            *SEND_TO_NAMED(
                stream_of(shard, channel),
                f"{shard.tag}:seen:{channel}",
                args=(capacity, session.next_token(), blob, *times),
            )
        )
        session.hub.counters.expired += expired
        self._count(session, channel, answer, capacity)

    def _count(self, session: Session, channel: str, answer: int, capacity: int) -> None:
        if answer == 1:
            session.hub.counters.sent += 1
        elif answer == 0:
            session.hub.counters.full += 1
            raise ChannelFull(f"channel {channel!r} holds {capacity} messages, which is its capacity")
        else:
            session.hub.counters.gone += 1

    async def group_send(self, group: str, message: Message, *, exclude: str | Iterable[str] = ()) -> str | None:
        """See :meth:`ChannelLayer.group_send`. It is one script call for any number of members.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time. If the error says "sent", the message may still
                arrive.

        Cancellation: a message that was not sent is withdrawn; one that was sent may arrive.
        """
        names.check_group_name(group)
        others = names.check_excluded(exclude)
        # Inlined _working_session(): no coroutine per message while the layer is open.
        session = self._sessions.get(trio.lowlevel.current_trio_token()) or await self._any_session()
        session.check()
        shard = session.shard_for(group)
        if (rule := self._histories.of(group)) is not None:
            blob = self._codec.pack(GROUP, group, message, others)
            check_unstamped(group, message)
            position = await shard.history.send(group, blob, rule)
            session.hub.counters.group_sent += 1
            return position
        blob = self._codec.pack(GROUP, group, message, others)
        part = shard.group_sends.part(group, blob)
        await shard.pipeline.call_combined(shard.group_sends, part, len(blob))
        session.hub.counters.group_sent += 1
        return None

    async def group_send_once(
        self, group: str, message: Message, identity: bytes, *, exclude: str | Iterable[str] = ()
    ) -> None:
        """See :meth:`ChannelLayer.group_send_once`. Raises and Cancellation: as :meth:`group_send`."""
        names.check_group_name(group)
        others = names.check_excluded(exclude)
        session = await self._working_session()
        shard = session.shard_for(group)
        blob = self._codec.pack(GROUP, group, message, others, identity)
        if (rule := self._histories.of(group)) is not None:
            check_unstamped(group, message)
            await shard.history.send(group, blob, rule, identity)
            session.hub.counters.group_sent += 1
            return
        part = shard.group_sends.part(group, blob)
        await shard.pipeline.call_combined(shard.group_sends, part, len(blob))
        session.hub.counters.group_sent += 1

    async def group_add(self, group: str, channel: str, *, since: str | None = None) -> Recovery:
        """See :meth:`ChannelLayer.group_add`. Messages that any process sends after it has returned arrive.

        A channel of another process is added by that process. If the process or the channel has ended, nothing is
        done.

        Raises:
            ChannelLayerUnavailable: Redis, or the process of the channel, did not confirm it in time. The membership of
                a group without history stands, and Redis is told later; another process may still carry it out. That of
                one with history has not begun.

        Cancellation: the same.
        """
        names.check_group_name(group)
        names.check_channel_name(channel)
        session = await self._working_session()
        await trio.lowlevel.checkpoint_if_cancelled()
        mailbox = session.hub.find(channel)
        if mailbox is None and not names.is_process_local(channel):
            mailbox = self._ownerless(channel)
        if mailbox is None:
            await self._change_elsewhere(session, JOIN, group, channel)
            return NO_HISTORY
        hub = session.hub
        rule = self._histories.of(group)
        if self._is_member(hub, group, channel, since):
            await session.wait_until_joined(group)
            return NO_HISTORY
        if rule is not None:
            return await join_with_history(hub, session.shard_for(group), group, mailbox, since, rule, self.expiry)
        self._join_plainly(hub, group, mailbox, since)
        await session.wait_until_joined(group)
        return NO_HISTORY

    async def history(self, group: str, *, since: str | None = None, limit: int | None = None) -> History:
        """See :meth:`ChannelLayer.history`.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: nothing is changed.
        """
        names.check_group_name(group)
        check_limit(limit)
        session = await self._working_session()
        await trio.lowlevel.checkpoint_if_cancelled()
        rule = self._histories.of(group)
        if rule is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return History((), recovered=False, position=None)
        most = rule.messages if limit is None else min(limit, rule.messages)
        found = await session.shard_for(group).history.read(group, rule, since, most)
        return History(tuple(kept.message for kept in found.messages), found.recovered, found.position)

    async def _change_elsewhere(self, session: Session, action: str, group: str, channel: str) -> None:
        """Change the membership of a process-local channel that this session does not have."""
        owner = names.process_of(channel)
        if owner == session.process:
            await trio.lowlevel.cancel_shielded_checkpoint()  # the channel has ended, and its memberships with it
        else:
            session.check()
            await session.elsewhere.change(action, group, channel, owner)

    async def group_discard(self, group: str, channel: str) -> None:
        """See :meth:`ChannelLayer.group_discard`. It takes effect at once in this process, and soon in Redis.

        A channel of another process is discarded by that process, before the call returns.

        Raises:
            ChannelLayerUnavailable: the other process did not confirm it in time.

        Cancellation: atomic; another process may still carry it out.
        """
        names.check_group_name(group)
        names.check_channel_name(channel)
        session = await self._any_session()
        await trio.lowlevel.checkpoint_if_cancelled()
        if names.is_process_local(channel) and channel not in session.hub.mailboxes:
            await self._change_elsewhere(session, LEAVE, group, channel)
        else:
            session.hub.leave(group, channel)
            await trio.lowlevel.cancel_shielded_checkpoint()

    @asynccontextmanager
    async def subscribe(
        self,
        *groups: str,
        overflow: Overflow | None = None,
        since: str | Mapping[str, str | None] | None = None,
    ) -> AsyncIterator[Subscription]:
        """See :meth:`ChannelLayer.subscribe`."""
        await self._working_session()
        async with super().subscribe(*groups, overflow=overflow, since=since) as events:
            yield events

    async def new_channel(self, prefix: str = "specific") -> str:
        """See :meth:`ChannelLayer.new_channel`. Cancellation: no channel is made."""
        await self._working_session()
        return await super().new_channel(prefix)

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. A named channel's message is acknowledged when it is returned.

        Raises:
            ForeignChannel: the channel is of another process.
            ChannelLayerUnavailable: Redis has been away for longer than ``timeout``.

        Cancellation: loses no message; one under way is delivered again.
        """
        names.check_channel_name(channel)
        session = await self._working_session()
        if names.is_process_local(channel) and names.process_of(channel) != session.process:
            raise names.foreign(channel)
        if names.is_process_local(channel) or channel in session.hub.mailboxes:
            return await super().receive(channel)
        shard = session.shard_for(channel)
        named = await session.named(channel)
        while True:
            blob, age = await named.receive()
            try:
                message = self._codec.unpack(blob).message
            except UndecodableEntry as error:
                shard.delivery.count_undecodable(channel, error)
                continue
            if age <= self.expiry:
                session.hub.counters.delivered += 1
                return message
            session.hub.counters.expired += 1

    def work_queue(self, channel: str) -> RedisWorkQueue:
        """See :meth:`ChannelLayer.work_queue`. Its messages outlive every process, as long as Redis keeps its data."""
        names.check_named_channel(channel)
        return RedisWorkQueue(partial(self._work_context, channel))

    def _work_context(self, channel: str) -> WorkContext:
        session = self._session()
        shard = session.shard_for(channel)
        return WorkContext(
            channel=channel,
            stream=stream_of(shard, channel),
            pipeline=shard.pipeline,
            codec=self._codec,
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            make_reader=lambda name: session.make_reader(channel, name, WORK_SCRIPTS),
            counters=session.hub.counters,
            process=session.process,
        )

    async def flush(self) -> None:
        """See :meth:`ChannelLayer.flush`. Members in other processes stay, and get a gap.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: only before it begins; then it is shielded, and each command takes at most ``timeout``.
        """
        session = await self._working_session()
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            for shard in session.shards:
                await shard.flush()
        session.hub.flush()

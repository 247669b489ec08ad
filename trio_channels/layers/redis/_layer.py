"""The Redis Streams channel layer; see :mod:`trio_channels.layers.redis`."""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, Unpack

import trio

from ... import _names
from ..._codec import Message
from ..._gap import Gap, Overflow
from ..._on_demand import not_open, open_on_demand
from ...abc import LayerOptions
from ...exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from .._hub import Hub
from .._local import LocalDelivery
from ._entry import CHANNEL, GROUP, NAMED, EntryCodec, SerializerFormat, UndecodableEntry
from ._hosts import parse_host
from ._named import NamedChannel
from ._scripts import GSEND, NSEND, SEND
from ._shard import LEASE, Shard, ShardStatistics
from ._topology import Cluster, Hosts, Topology, shard_of

DEFAULT_HOSTS = ("redis://localhost:6379",)
#: Messages that wait in one process' inbox for its reader, all its connections together.
INBOX_CAPACITY = 10_000
#: Seconds that a call may take.
TIMEOUT = 5.0
#: Logical shards of a Redis Cluster.
CLUSTER_SHARDS = 4
#: Named channels that keep their connection while nobody receives.
IDLE_NAMED_CHANNELS = 16
#: Seconds for which Redis remembers which messages to a named channel it has accepted; a multiple of what a command can
#: be sent again in.
TOKEN_MEMORY = 60.0


class RedisStreamsChannelLayer(LocalDelivery):
    """Passes messages between the connections of many processes, through Redis Streams.

    Args:
        hosts: a list of servers, each a URI, a (host, port) pair or a dict; or ``{"cluster": [...]}`` for a Redis
            Cluster. Several servers share the groups between them.
        prefix: of every key.
        symmetric_encryption_keys: secrets; the first encrypts and signs, all decrypt. Needs ``cryptography``.
        serializer_format: ``msgpack`` or ``json``.
        timeout: seconds after which a call raises ChannelLayerUnavailable.
        inbox_capacity: messages that may wait for one process before further ones are refused, counted, and reported to
            it as a gap.
        options: see :class:`~trio_channels.abc.ChannelLayer`.

    Raises:
        InvalidChannelLayerError: an argument is wrong.

    It must be open to be used: a ``ProtocolTypeRouter`` opens it at start-up; elsewhere, ``async with layer:``. Only
    where ``async_to_sync`` runs something in the background, it opens itself.
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
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if not prefix or set("{}") & set(prefix):
            raise InvalidChannelLayerError(f"prefix must be a str that is not empty, without braces; got {prefix!r}")
        if not timeout > 0 or inbox_capacity < 1:
            raise InvalidChannelLayerError(
                f"timeout and inbox_capacity must be positive; got {timeout!r} and {inbox_capacity!r}"
            )
        self.prefix = prefix
        self.timeout = timeout
        self.inbox_capacity = inbox_capacity
        self._codec = EntryCodec(serializer_format, symmetric_encryption_keys)
        self._topology = _topology(hosts, prefix)
        self._open: dict[trio.lowlevel.TrioToken, _OpenLayer] = {}
        # An entry stays until its block is left: close() may be called inside it, but the nursery is the block's.
        self._nurseries: dict[trio.lowlevel.TrioToken, _OpenLayer] = {}

    def __repr__(self) -> str:
        return f"<RedisStreamsChannelLayer {self._topology!r}, open in {len(self._open)} Trio runs>"

    # -- opening ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the layer in this Trio run.

        Raises:
            ChannelLayerUnavailable: Redis could not be reached within the time limit.
            InvalidChannelLayerError: it is open in this run already.

        Cancellation: leaves nothing open.
        """
        token = trio.lowlevel.current_trio_token()
        if token in self._nurseries:
            raise InvalidChannelLayerError("the channel layer is open in this Trio run already")
        opened = self._open[token] = self._nurseries[token] = _OpenLayer(self)
        self._hubs[token] = opened.hub
        try:
            await opened.start()
        except BaseException:
            self._forget(token)
            del self._nurseries[token]
            raise
        return self

    async def __aexit__(self, *exc: Any) -> None:
        opened = self._nurseries.pop(trio.lowlevel.current_trio_token())
        try:
            await self.close()
        finally:
            await opened.leave_nursery(*exc)

    async def close(self) -> None:
        """Leave Redis, and stop the layer's tasks in this Trio run. Leaving the ``async with`` block does it too.

        Cancellation: what is left in Redis goes with its lease, after 30 seconds.
        """
        token = trio.lowlevel.current_trio_token()
        opened = self._open.get(token)
        if opened is not None:
            try:
                await opened.stop()
            finally:
                opened.hub.close_ownerless()
                self._forget(token)

    def _forget(self, token: trio.lowlevel.TrioToken) -> None:
        self._open.pop(token, None)
        self._hubs.pop(token, None)

    def _opened(self) -> _OpenLayer:
        opened = self._open.get(trio.lowlevel.current_trio_token())
        if opened is None:
            raise not_open()
        return opened

    async def _ready(self) -> _OpenLayer:
        """What is open in this Trio run; in the background run of ``async_to_sync``, opened if need be."""
        opened = self._open.get(trio.lowlevel.current_trio_token())
        if opened is None:
            await open_on_demand(self)
            opened = self._opened()
        return opened

    def _hub(self) -> Hub:
        return self._opened().hub

    def _process_mark(self) -> str:
        return f".{self._opened().process}"

    def shard_statistics(self) -> tuple[ShardStatistics, ...]:
        """An immutable snapshot of each shard in this Trio run; see :meth:`statistics` for the messages.

        Raises:
            ChannelLayerUnavailable: the layer is not open.
        """
        return tuple(shard.statistics() for shard in self._opened().shards)

    # -- messages ---------------------------------------------------------------------------------------------------

    async def send(self, channel: str, message: Message) -> None:
        """See :meth:`ChannelLayer.send`.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time; the message may yet arrive if it says so.

        Cancellation: before it is sent, nothing is; later it may arrive.
        """
        _names.check_channel_name(channel)
        opened = await self._ready()
        if _names.is_process_local(channel):
            await self._send_to_process(opened, channel, message)
        else:
            await self._send_to_named(opened, channel, message)

    async def _send_to_process(self, opened: _OpenLayer, channel: str, message: Message) -> None:
        process = channel.partition("!")[0].rpartition(".")[2]
        shard = opened.shard_for(process)
        blob = self._codec.pack(CHANNEL, channel, message)
        inbox = f"{shard.tag}:i:{process}"
        answer = await shard.link.call(*SEND(inbox, args=(self.inbox_capacity, opened.next_token(), blob)))
        self._count(opened, channel, answer, self.inbox_capacity)

    async def _send_to_named(self, opened: _OpenLayer, channel: str, message: Message) -> None:
        shard = opened.shard_for(channel)
        blob = self._codec.pack(NAMED, channel, message)
        capacity = self.get_capacity(channel)
        memory = max(TOKEN_MEMORY, 4 * self.timeout)
        times = (int(seconds * 1000) for seconds in (self.group_expiry, self.expiry, memory))
        answer, expired = await shard.link.call(
            *NSEND(
                _stream(shard, channel),
                f"{shard.tag}:seen:{channel}",
                args=(capacity, opened.next_token(), blob, *times),
            )
        )
        opened.hub.counters.expired += expired
        self._count(opened, channel, answer, capacity)

    def _count(self, opened: _OpenLayer, channel: str, answer: int, capacity: int) -> None:
        if answer == 1:
            opened.hub.counters.sent += 1
        elif answer == 0:
            opened.hub.counters.full += 1
            raise ChannelFull(f"channel {channel!r} holds {capacity} messages, which is its capacity")
        else:
            opened.hub.counters.gone += 1

    async def group_send(self, group: str, message: Message) -> None:
        """See :meth:`ChannelLayer.group_send`; one script call, whatever the number of members.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time; the message may yet arrive if it says so.

        Cancellation: before it is sent, nothing is; later it may arrive.
        """
        _names.check_group_name(group)
        opened = await self._ready()
        shard = opened.shard_for(group)
        blob = self._codec.pack(GROUP, group, message)
        await shard.link.call(
            *GSEND(
                shard.group_key(group),
                args=(
                    f"{shard.tag}:i:",
                    self.inbox_capacity,
                    int(LEASE * 1000),
                    opened.next_token(),
                    blob,
                ),
            )
        )
        opened.hub.counters.group_sent += 1

    # -- groups -----------------------------------------------------------------------------------------------------

    async def group_add(self, group: str, channel: str) -> None:
        """See :meth:`ChannelLayer.group_add`. A message sent after it has returned, by anybody, arrives.

        Only channels of this process can be added: those of connections, subscribers and ``new_channel``.

        Raises:
            ChannelLayerUnavailable: Redis could not be told in time. The membership stands, and Redis will be told.

        Cancellation: the membership stands.
        """
        _names.check_group_name(group)
        _names.check_channel_name(channel)
        opened = await self._ready()
        await trio.lowlevel.checkpoint_if_cancelled()
        mailbox = opened.hub.mailboxes.get(channel)
        if mailbox is None and not _names.is_process_local(channel):
            mailbox = self._ownerless(channel)
        if mailbox is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        opened.hub.join(group, mailbox)
        await opened.shard_for(group).wait_until_joined(group)

    async def group_discard(self, group: str, channel: str) -> None:
        """See :meth:`ChannelLayer.group_discard`. At once here; Redis is told soon.

        Cancellation: atomic.
        """
        _names.check_group_name(group)
        _names.check_channel_name(channel)
        opened = await self._ready()
        await trio.lowlevel.checkpoint_if_cancelled()
        opened.hub.leave(group, channel)
        await trio.lowlevel.cancel_shielded_checkpoint()

    @asynccontextmanager
    async def subscribe(
        self, *groups: str, overflow: Overflow | None = None
    ) -> AsyncIterator[AsyncIterator[Message | Gap]]:
        """See :meth:`ChannelLayer.subscribe`."""
        await self._ready()
        async with super().subscribe(*groups, overflow=overflow) as events:
            yield events

    async def new_channel(self, prefix: str = "specific") -> str:
        """See :meth:`ChannelLayer.new_channel`. Cancellation: makes none."""
        await self._ready()
        return await super().new_channel(prefix)

    # -- named channels ---------------------------------------------------------------------------------------------

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. A named channel's message is acknowledged when it is returned.

        Raises:
            ChannelLayerUnavailable: Redis has been away for longer than the time limit.

        Cancellation: loses no message; one that Redis has handed out is handed out again.
        """
        _names.check_channel_name(channel)
        opened = await self._ready()
        if _names.is_process_local(channel) or channel in opened.hub.mailboxes:
            return await super().receive(channel)
        shard = opened.shard_for(channel)
        named = await opened.named(channel)
        while True:
            blob, age = await named.receive()
            try:
                message = self._codec.unpack(blob).message
            except UndecodableEntry as error:
                shard.count_undecodable(channel, error)
                continue
            if age <= self.expiry:
                opened.hub.counters.delivered += 1
                return message
            opened.hub.counters.expired += 1

    async def flush(self) -> None:
        """See :meth:`ChannelLayer.flush`. Other processes' members stay, and are told that something may be lost.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: seen before it begins; then it is shielded, and bounded by the time limit of each command.
        """
        opened = await self._ready()
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            for shard in opened.shards:
                await shard.flush()
        opened.hub.flush()


class _OpenLayer:
    """What an open layer has in one Trio run: its tasks, its hub, its shards."""

    def __init__(self, layer: RedisStreamsChannelLayer) -> None:
        self.process = secrets.token_hex(8)
        self.hub = Hub(on_change=self._membership_changed)
        self._layer = layer
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()
        self._working = trio.CancelScope()
        self._named: OrderedDict[str, NamedChannel] = OrderedDict()
        topology = layer._topology
        self.shards = [self._make_shard(index, topology) for index in range(topology.shards)]

    def _make_shard(self, index: int, topology: Topology) -> Shard:
        layer = self._layer
        return Shard(
            index=index,
            tag=f"{{{layer.prefix}:{index}}}",
            process=self.process,
            hub=self.hub,
            topology=topology,
            codec=layer._codec,
            mine=lambda group: shard_of(group, topology.shards) == index,
            is_home=shard_of(self.process, topology.shards) == index,
            next_token=self.next_token,
            timeout=layer.timeout,
            expiry=layer.expiry,
            group_expiry=layer.group_expiry,
            inbox_capacity=layer.inbox_capacity,
        )

    def next_token(self) -> str:
        """A token that no other message has."""
        return f"{self.process}-{next(self._numbers)}"

    def shard_for(self, name: str) -> Shard:
        """The shard that a group, process or named channel belongs to."""
        return self.shards[shard_of(name, len(self.shards))]

    def _membership_changed(self, group: str) -> None:
        self.shard_for(group).membership_changed(group)

    async def start(self) -> None:
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        try:
            nursery.start_soon(self._work)
            with trio.move_on_after(self._layer.timeout) as patience:
                for shard in self.shards:
                    await shard.wait_until_attached()
            if patience.cancelled_caught:
                raise ChannelLayerUnavailable(
                    f"the channel layer could not be opened within {self._layer.timeout:g} seconds: {self.shards}"
                )
        except BaseException:
            self._working.cancel()
            await self._stack.aclose()
            raise

    async def _work(self) -> None:
        # A scope of its own: the nursery's covers what the user does while the layer is open.
        with self._working:
            async with trio.open_nursery() as nursery:
                for shard in self.shards:
                    nursery.start_soon(shard.run, name=shard.tag)

    async def stop(self) -> None:
        """Leave every shard, all of them at a time, within the time limit."""
        try:
            with trio.move_on_after(self._layer.timeout):
                async with trio.open_nursery() as nursery:
                    for shard in self.shards:
                        nursery.start_soon(_unless_unavailable, shard.leave)
                    for named in self._named.values():
                        nursery.start_soon(_unless_unavailable, named.quit)
        finally:
            self._working.cancel()
            for named in self._named.values():
                await named.disconnect()

    async def leave_nursery(self, *exc: Any) -> None:
        """End the nursery with what the block ended with: its cancellation may be the nursery's own."""
        try:
            await self._stack.__aexit__(*exc)
        except BaseException as raised:
            if set(_leaves(raised)) != {exc[1]}:
                raise
            # The block's own exception: it goes on as it is, not in a group.

    async def named(self, channel: str) -> NamedChannel:
        """The named channel's reader, made if there is none. Those that nobody uses keep a few connections open."""
        found = self._named.get(channel)
        if found is None:
            shard = self.shard_for(channel)
            found = self._named[channel] = NamedChannel(
                stream=_stream(shard, channel),
                consumer=self.process,
                index=self.shards.index(shard),
                link=shard.link,
                topology=self._layer._topology,
                timeout=self._layer.timeout,
            )
        self._named.move_to_end(channel)
        for name in list(self._named)[: -IDLE_NAMED_CHANNELS - 1]:
            if not self._named[name].in_use:
                await self._named.pop(name).disconnect()
        return found


def _leaves(raised: BaseException) -> Iterator[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        for inner in raised.exceptions:
            yield from _leaves(inner)
    else:
        yield raised


async def _unless_unavailable(call: Callable[[], Awaitable[None]]) -> None:
    try:
        await call()
    except ChannelLayerUnavailable:
        pass  # what is left in Redis goes with its lease


def _stream(shard: Shard, channel: str) -> str:
    return f"{shard.tag}:c:{channel}"


def _topology(hosts: Any, prefix: str) -> Topology:
    if isinstance(hosts, dict) and "cluster" in hosts:
        seeds, shards = hosts["cluster"], hosts.get("shards", CLUSTER_SHARDS)
        if set(hosts) - {"cluster", "shards"} or not isinstance(seeds, list | tuple) or not seeds:
            raise InvalidChannelLayerError("a cluster must be given as {'cluster': [hosts to ask, ...], 'shards': 4}")
        if not isinstance(shards, int) or shards < 1:
            raise InvalidChannelLayerError(f"the shards of a cluster must be a number of at least 1; got {shards!r}")
        return Cluster([parse_host(entry) for entry in seeds], prefix, shards)
    if not isinstance(hosts, list | tuple) or not hosts:
        raise InvalidChannelLayerError(f"hosts must be a list that is not empty, such as {list(DEFAULT_HOSTS)}")
    return Hosts([parse_host(entry) for entry in hosts])

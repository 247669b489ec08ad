"""The Redis Streams channel layer; see :mod:`trio_channels.layers.redis`."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self, Unpack

import trio

from ... import _names
from ..._codec import Message
from ...abc import LayerOptions
from ...exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from .._hub import Hub
from .._local import LocalDelivery
from ._entry import CHANNEL, GROUP, NAMED, EntryCodec, SerializerFormat, UndecodableEntry
from ._hosts import parse_host
from ._scripts import DONE, GSEND, NSEND, SEND
from ._shard import LEASE, Shard
from ._topology import Cluster, Hosts, Topology, shard_of
from ._wire import LinkLost, ReplyError, Wire, open_wire

DEFAULT_HOSTS = ("redis://localhost:6379",)
#: Messages that wait in one process' inbox for its reader, all its connections together.
INBOX_CAPACITY = 10_000
#: Seconds that a call may take.
TIMEOUT = 5.0
#: Logical shards of a Redis Cluster.
CLUSTER_SHARDS = 4

_CONSUMER_GROUP = "w"


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

    It must be open to be used: a ``ProtocolTypeRouter`` opens it at start-up; elsewhere, ``async with layer:``.
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

    async def __aexit__(self, *_exc: object) -> None:
        opened = self._nurseries.pop(trio.lowlevel.current_trio_token())
        try:
            await self.close()
        finally:
            await opened.leave_nursery()

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
            raise ChannelLayerUnavailable(
                "the channel layer is not open in this Trio run: serve through a ProtocolTypeRouter, which opens it at "
                "start-up, or write 'async with layer:' around its use"
            )
        return opened

    def _hub(self) -> Hub:
        return self._opened().hub

    def _process_mark(self) -> str:
        return f".{self._opened().process}"

    # -- messages ---------------------------------------------------------------------------------------------------

    async def send(self, channel: str, message: Message) -> None:
        """See :meth:`ChannelLayer.send`.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time; the message may yet arrive if it says so.

        Cancellation: before it is sent, nothing is; later it may arrive.
        """
        _names.check_channel_name(channel)
        opened = self._opened()
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
        sender, _, number = opened.next_token().rpartition("-")
        arguments = (capacity, sender, number, blob, int(self.group_expiry * 1000))
        answer = await shard.link.call(*NSEND(_stream(shard, channel), f"{shard.tag}:hw:{channel}", args=arguments))
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
        opened = self._opened()
        shard = opened.shard_for(group)
        blob = self._codec.pack(GROUP, group, message)
        await shard.link.call(
            *GSEND(
                shard.group_key(group),
                args=(
                    f"{shard.tag}:i:",
                    self.inbox_capacity,
                    int(self.group_expiry * 1000),
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
        opened = self._opened()
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
        await trio.lowlevel.checkpoint_if_cancelled()
        self._opened().hub.leave(group, channel)
        await trio.lowlevel.cancel_shielded_checkpoint()

    # -- named channels ---------------------------------------------------------------------------------------------

    async def receive(self, channel: str) -> Message:
        """See :meth:`ChannelLayer.receive`. A named channel's message is acknowledged when it is returned.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: loses no message; one that Redis has handed out is handed out again.
        """
        _names.check_channel_name(channel)
        opened = self._opened()
        if _names.is_process_local(channel) or channel in opened.hub.mailboxes:
            return await super().receive(channel)
        shard = opened.shard_for(channel)
        async with opened.named_wire(channel) as wire:
            while True:
                entry_id, blob = await _read_one(wire, _stream(shard, channel), opened.process)
                await shard.link.call(*DONE(_stream(shard, channel), args=(_CONSUMER_GROUP, entry_id)))
                try:
                    return self._codec.unpack(blob).message
                except UndecodableEntry:
                    shard.undecodable += 1

    async def flush(self) -> None:
        """See :meth:`ChannelLayer.flush`. Other processes' members stay, and are told that something may be lost.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: seen before it begins; then it is shielded, and bounded by the time limit of each command.
        """
        opened = self._opened()
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
        self._named: dict[str, _NamedWire] = {}
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
        self._nursery = nursery
        try:
            for shard in self.shards:
                nursery.start_soon(shard.run, name=shard.tag)
            with trio.move_on_after(self._layer.timeout) as patience:
                for shard in self.shards:
                    await shard.wait_until_attached()
            if patience.cancelled_caught:
                raise ChannelLayerUnavailable(
                    f"the channel layer could not be opened within {self._layer.timeout:g} seconds: {self.shards}"
                )
        except BaseException:
            nursery.cancel_scope.cancel()
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        try:
            for shard in self.shards:
                try:
                    await shard.leave()
                except (ChannelLayerUnavailable, ReplyError):
                    continue  # it goes with its lease
        finally:
            self._nursery.cancel_scope.cancel()

    async def leave_nursery(self) -> None:
        self._nursery.cancel_scope.cancel()
        await self._stack.aclose()

    def named_wire(self, channel: str) -> _NamedWire:
        shard = self.shard_for(channel)
        index = self.shards.index(shard)
        wire = self._named.get(channel)
        if wire is None:
            wire = self._named[channel] = _NamedWire(_stream(shard, channel), self._layer._topology, index)
        return wire


class _NamedWire:
    """A connection for reading one named channel; one receiver at a time."""

    def __init__(self, stream: str, topology: Topology, index: int) -> None:
        self._stream = stream
        self._topology = topology
        self._index = index
        self._turn = trio.Lock()
        self._wire: Wire | None = None

    async def __aenter__(self) -> Wire:
        await self._turn.acquire()
        try:
            self._wire = await open_wire(await self._topology.locate(self._index))
            [reply] = await self._wire.exchange(("XGROUP", "CREATE", self._stream, _CONSUMER_GROUP, "0", "MKSTREAM"))
            if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
                raise LinkLost(f"{self._wire.host} says: {reply}")
        except BaseException:
            await self.__aexit__()
            raise
        return self._wire

    async def __aexit__(self, *_exc: object) -> None:
        try:
            if self._wire is not None:
                with trio.CancelScope(shield=True):
                    await self._wire.aclose()
                self._wire = None
        finally:
            self._turn.release()


async def _read_one(wire: Wire, stream: str, consumer: str) -> tuple[bytes, bytes]:
    while True:
        [reply] = await wire.exchange(
            (
                "XREADGROUP",
                "GROUP",
                _CONSUMER_GROUP,
                consumer,
                "COUNT",
                1,
                "BLOCK",
                int(LEASE * 100),
                "STREAMS",
                stream,
                ">",
            )
        )
        if isinstance(reply, ReplyError):
            raise LinkLost(f"{wire.host} says: {reply}")
        if reply:
            [[_name, [[entry_id, fields]]]] = reply
            return entry_id, dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")


def _stream(shard: Shard, channel: str) -> str:
    return f"{shard.tag}:c:{channel}"


def _topology(hosts: Any, prefix: str) -> Topology:
    if isinstance(hosts, dict) and "cluster" in hosts:
        seeds = [parse_host(entry) for entry in hosts["cluster"]]
        return Cluster(seeds, prefix, int(hosts.get("shards", CLUSTER_SHARDS)))
    if isinstance(hosts, str | bytes | dict) or not hosts:
        raise InvalidChannelLayerError(f"hosts must be a list that is not empty, such as {list(DEFAULT_HOSTS)}")
    return Hosts([parse_host(entry) for entry in hosts])

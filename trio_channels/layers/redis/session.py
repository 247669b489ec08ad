"""Sessions: an open layer in one Trio run has tasks, a hub, shards and named channels of its own."""

from __future__ import annotations

import abc
import functools
import itertools
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, Unpack

import trio

from ..._concurrency.exception_groups import leaves
from ...exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from ..base import LayerOptions
from ..hub import Hub
from ..local import LocalDelivery
from ..mailbox import Mailbox
from ..on_demand import not_open, open_on_demand
from ..presence.options import PresenceLimits
from ..presence.table import PresenceTable
from .codec import EntryCodec
from .elsewhere import MembershipsElsewhere
from .named_channel import NamedChannel, StreamReader
from .presence import RedisPresence
from .scripts import SEND_TO_PROCESS, Script
from .shard import Shard, ShardOptions
from .topology import Topology, shard_of

logger = logging.getLogger("trio_channels.layers.redis")

#: Most named channels that keep a connection while nobody receives.
IDLE_NAMED_CHANNELS = 16


class Session:
    """A layer in one Trio run."""

    def __init__(
        self,
        *,
        topology: Topology,
        prefix: str,
        codec: EntryCodec,
        timeout: float,
        expiry: float,
        inbox_capacity: int,
        keeps_history: bool,
        presence: PresenceLimits,
    ) -> None:
        self.process = secrets.token_hex(8)
        self.hub = Hub(on_change=self._membership_changed)
        self.codec = codec
        self.presence = self.hub.presence = PresenceTable(
            hub=self.hub, process=self.process, limits=presence, expiry=expiry, backend=RedisPresence(self)
        )
        self._topology = topology
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()
        self._has_been_broken = False
        self._working = trio.CancelScope()
        self._named: OrderedDict[str, NamedChannel] = OrderedDict()
        options = ShardOptions(
            process=self.process,
            hub=self.hub,
            codec=codec,
            next_number=functools.partial(next, self._numbers),
            timeout=timeout,
            expiry=expiry,
            inbox_capacity=inbox_capacity,
            keeps_history=keeps_history,
            on_broken=self._broken,
            on_membership=lambda payload: self.elsewhere.receive(payload),
        )
        self.shards = [self._make_shard(index, f"{{{prefix}:{index}}}", options) for index in range(topology.shards)]

        self.elsewhere = MembershipsElsewhere(
            process=self.process,
            hub=self.hub,
            codec=codec,
            send=functools.partial(self.send_to_process, capacity=inbox_capacity),
            wait_until_joined=self.wait_until_joined,
            timeout=timeout,
        )

    def __repr__(self) -> str:
        return f"<Session of process {self.process}, {self.shards}>"

    def _make_shard(self, index: int, tag: str, options: ShardOptions) -> Shard:
        count = self._topology.shards
        return Shard(
            tag=tag,
            locate=lambda: self._topology.locate(index),
            mine=lambda group: shard_of(group, count) == index,
            is_home=shard_of(self.process, count) == index,
            options=options,
        )

    @property
    def problem(self) -> str | None:
        """A sentence about what is broken in the layer, or None. Thread-safe."""
        return next((problem for shard in self.shards if (problem := shard.supervisor.problem)), None)

    def check(self) -> None:
        """Raise ChannelLayerUnavailable if the layer is broken."""
        if self._has_been_broken and (problem := self.problem) is not None:
            raise ChannelLayerUnavailable(f"the channel layer is broken: {problem}")

    def _broken(self, problem: str) -> None:
        self._has_been_broken = True
        logger.critical(
            "the channel layer is broken and ends its %d connections and subscribers: %s",
            len(self.hub.mailboxes),
            problem,
        )
        self.hub.fail(problem)

    def next_token(self) -> str:
        """A unique token for a message."""
        return f"{self.process}-{next(self._numbers)}"

    def shard_for(self, name: str) -> Shard:
        """The shard that a group, process or named channel belongs to."""
        return self.shards[shard_of(name, len(self.shards))]

    async def send_to_process(self, process: str, blob: bytes, capacity: int) -> int:
        """Put a blob into the inbox of a process: 1 accepted, 0 the inbox is full, -1 there is none."""
        shard = self.shard_for(process)
        keys = shard.keys
        command = SEND_TO_PROCESS(keys.done, keys.inboxes + process, keys.refused, args=(*keys.stamp(), capacity, blob))
        answer: int = await shard.pipeline.call(*command)
        return answer

    async def wait_until_joined(self, group: str) -> None:
        """Wait until Redis knows that this process has members; see :class:`Memberships`."""
        await self.shard_for(group).memberships.wait_until_joined(group)

    def _membership_changed(self, group: str) -> None:
        self.shard_for(group).memberships.change(group)

    async def start(self, *, patient: bool = False) -> None:
        """Start the shards' tasks, and wait until every shard's reader is attached; a failure ends the tasks.

        A patient start waits for the first attempts only, and fails if more would fail as they did.
        """
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        try:
            nursery.start_soon(self._work)
            with trio.move_on_after(self._timeout) as time_limit:
                for shard in self.shards:
                    await shard.contacted()
                for shard in () if patient else self.shards:
                    await shard.reader.attached.wait()
            if time_limit.cancelled_caught and not patient:
                problems = {shard.reader.problem for shard in self.shards if not shard.reader.attached.is_set()}
                raise ChannelLayerUnavailable(
                    f"the channel layer could not be opened within {self._timeout:g} seconds: {'; '.join(problems)}"
                )
        except BaseException:
            self._working.cancel()
            await self._stack.aclose()
            raise

    async def _work(self) -> None:
        # A scope of its own: the nursery's covers the user's block too.
        with self._working:
            async with trio.open_nursery() as nursery:
                for shard in self.shards:
                    nursery.start_soon(shard.run, name=shard.tag)
                watcher = self.shards[0].supervisor
                nursery.start_soon(watcher.run, "the membership requests", self.elsewhere.run)

    async def stop(self) -> None:
        """Leave all shards at the same time, within the time limit, and end the tasks."""
        try:
            with trio.move_on_after(self._timeout):
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
        """Exit the nursery with the exception of the block, which may be the nursery's own cancellation."""
        try:
            await self._stack.__aexit__(*exc)
        except BaseException as raised:
            if set(leaves(raised)) != {exc[1]}:
                raise
            # The block's own exception propagates as it is, not in a group.

    def make_reader(self, channel: str, consumer: str, scripts: tuple[Script, ...] = ()) -> StreamReader:
        """Make a reader of a named channel, not connected yet."""
        shard = self.shard_for(channel)
        index = self.shards.index(shard)
        return StreamReader(
            stream=stream_of(shard, channel),
            consumer=consumer,
            pipeline=shard.pipeline,
            locate=lambda: self._topology.locate(index),
            timeout=self._timeout,
            scripts=scripts,
        )

    async def named(self, channel: str) -> NamedChannel:
        """The named channel, made if there is none. Of those that nobody uses, the latest keep their connections."""
        found = self._named.get(channel)
        if found is None:
            found = self._named[channel] = NamedChannel(self.make_reader(channel, self.process), self._timeout)
        self._named.move_to_end(channel)
        for name in list(self._named)[: -IDLE_NAMED_CHANNELS - 1]:
            if not self._named[name].in_use:
                await self._named.pop(name).disconnect()
        return found


async def _unless_unavailable(call: Callable[[], Awaitable[None]]) -> None:
    try:
        await call()
    except ChannelLayerUnavailable:
        pass  # the rest expires with its lease


def stream_of(shard: Shard, channel: str) -> str:
    """The key of a named channel."""
    return f"{shard.tag}:c:{channel}"


class OpenableLayer(LocalDelivery):
    """The part of the layer that opens and closes it: separately in each Trio run, for the length of a block."""

    def __init__(self, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self._sessions: dict[trio.lowlevel.TrioToken, Session] = {}
        # These stay until the block is left: close() may be called inside, but the nursery belongs to the block.
        self._entered: dict[trio.lowlevel.TrioToken, Session] = {}

    @abc.abstractmethod
    def _new_session(self) -> Session:
        """Make a session for a Trio run."""

    async def __aenter__(self) -> Self:
        """Open the layer in this Trio run.

        Raises:
            ChannelLayerUnavailable: Redis could not be reached within the time limit, or refuses the configuration.
            InvalidChannelLayerError: the layer is already open in this run.

        Cancellation: leaves nothing open.
        """
        return await self._open(patient=False)

    @asynccontextmanager
    async def open_patiently(self) -> AsyncIterator[Self]:
        """Open the layer; a Redis that is away is waited for in the background. See :class:`ChannelLayer`.

        Raises:
            ChannelLayerUnavailable: Redis refuses the configuration: a password, TLS, its version.
            InvalidChannelLayerError: the layer is already open in this run.

        Cancellation: leaves nothing open.
        """
        async with AsyncExitStack() as stack:
            await self._open(patient=True)
            stack.push_async_exit(self.__aexit__)
            yield self

    async def _open(self, *, patient: bool) -> Self:
        token = trio.lowlevel.current_trio_token()
        if token in self._entered:
            raise InvalidChannelLayerError("the channel layer is already open in this Trio run; open it once")
        session = self._sessions[token] = self._entered[token] = self._new_session()
        self._hubs[token] = session.hub
        session.hub.capacity_of = self.get_capacity
        try:
            await session.start(patient=patient)
        except BaseException:
            self._forget(token)
            del self._entered[token]
            raise
        return self

    async def __aexit__(self, *exc: Any) -> None:
        session = self._entered.pop(trio.lowlevel.current_trio_token())
        try:
            await self.close()
        finally:
            await session.leave_nursery(*exc)

    async def close(self) -> None:
        """Leave Redis, and end the layer's tasks in this Trio run, as the end of the ``async with`` block does.

        Cancellation: the layer is closed; its keys in Redis expire with the lease, after 30 seconds.
        """
        token = trio.lowlevel.current_trio_token()
        session = self._sessions.get(token)
        if session is not None:
            try:
                await session.stop()
            finally:
                session.hub.close_ownerless()
                self._forget(token)

    def _forget(self, token: trio.lowlevel.TrioToken) -> None:
        self._sessions.pop(token, None)
        self._hubs.pop(token, None)

    def _session(self) -> Session:
        session = self._sessions.get(trio.lowlevel.current_trio_token())
        if session is None:
            raise not_open()
        return session

    async def _working_session(self) -> Session:
        """The session of this Trio run, which must not be broken; see :meth:`_any_session`."""
        session = await self._any_session()
        session.check()
        return session

    async def _any_session(self) -> Session:
        """The session of this Trio run. In the background run of ``async_to_sync`` it is opened on demand."""
        session = self._sessions.get(trio.lowlevel.current_trio_token())
        if session is None:
            await open_on_demand(self)
            session = self._session()
        return session

    def _hub(self) -> Hub:
        session = self._session()
        session.check()
        return session.hub

    async def _presence(self) -> tuple[PresenceTable, dict[str, Mailbox]]:
        session = await self._working_session()
        return session.presence, session.hub.mailboxes

    def _internal(self, hub: Hub) -> int:
        return len(hub.presence.views) if hub.presence is not None else 0

    def _healthy(self) -> bool:
        return all(session.problem is None for session in list(self._sessions.values()))

    def _process_mark(self) -> str:
        return f".{self._session().process}"

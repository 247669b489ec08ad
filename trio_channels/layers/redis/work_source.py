"""The messages that one worker takes from a named channel: pending in the consumer group until it settles them.

The rules:

- Each source is a consumer of its own. The messages pending for it are in hand here, or were under way when a
  connection broke; it fetches the latter after the reconnect.
- A source renews the messages in hand, three times in the time after which another worker would take them over.
- A message to retry waits, with its number of deliveries, under a consumer name under which nobody reads. Once it
  counts as idle for long enough, any worker takes it over.
- A message that was never delivered is lost after the layer's ``expiry``. A delivered one does not expire.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from ..._concurrency.backoff import BackOff
from ...exceptions import ChannelLayerUnavailable
from ..message import Counters
from ..work import Delivery, Settled, WorkSource
from .codec import NAMED, EntryCodec, UndecodableEntry
from .connection import Argument, ConnectionLost
from .named_channel import BLOCK, CONSUMER_GROUP, StreamReader, blob_of
from .pipeline import Pipeline
from .scripts import (
    WORK_BURY,
    WORK_DONE,
    WORK_LEAVE,
    WORK_PENDING,
    WORK_RENEW,
    WORK_RETRY,
    WORK_TAKE_OVER,
)

logger = logging.getLogger("trio_channels.layers.redis")

#: The consumer name under which messages wait to be retried.
RETRY_CONSUMER = "again"
#: Most dead letters of one channel.
DEAD_LETTERS = 10_000
#: Seconds between two searches for messages of dead workers and messages to retry.
LOOK_INTERVAL = 1.0
#: Seconds after which the name of a dead worker is deleted.
FORGET_AFTER = 3600.0
#: Seconds between two attempts to settle a message during an outage.
SETTLE_AGAIN = 0.5

#: Answers of the scripts that settle a message.
_TAKEN_OVER, _DEAD_LETTER_DELETED = 0, 3


@dataclass(frozen=True, slots=True)
class WorkContext:
    """The parts of a layer that a work queue uses.

    Args:
        channel, stream: name and key of the channel.
        pipeline: of the channel's shard.
        codec, counters: of the layer.
        expiry, group_expiry: of the layer, in seconds.
        make_reader: makes a reader of the stream for a consumer name.
        process: this process' id, the beginning of its consumer names.
    """

    channel: str
    stream: str
    pipeline: Pipeline
    codec: EntryCodec
    expiry: float
    group_expiry: float
    make_reader: Callable[[str], StreamReader]
    counters: Counters
    process: str

    @property
    def dead(self) -> str:
        """The key of the dead letters, a stream."""
        return f"{self.stream}:dead"


class RedisWorkSource(WorkSource):
    """The messages that one worker takes; see :class:`~trio_channels.layers.base.WorkSource`."""

    def __init__(self, context: WorkContext, max_deliveries: int, claim_after: float) -> None:
        self.settled = Settled()
        self._context = context
        self._max_deliveries = max_deliveries
        self._claim_after = claim_after
        self._worker = f"{context.process}.{secrets.token_hex(4)}"
        self._consumer = (CONSUMER_GROUP, self._worker)  # the first arguments of each script
        self._reader = context.make_reader(self._worker)
        self._in_hand: dict[str, bool] = {}  # id -> whether it still belongs to this worker
        self._look_at = -math.inf
        self._outage = _Outage(context.channel)

    def __repr__(self) -> str:
        return f"<RedisWorkSource {self._context.channel} as {self._worker}, {len(self._in_hand)} in hand>"

    async def take(self, at_most: int) -> list[Delivery]:
        """See :meth:`WorkSource.take`. Cancellation: loses nothing; unread messages go to the next call."""
        back_off = BackOff()
        while True:
            try:
                taken = await self._take(at_most)
            except (ConnectionLost, ChannelLayerUnavailable) as error:
                self._outage.goes_on(error)
                await back_off.wait()
            else:
                self._outage.over()
                back_off.reset()
                if taken:
                    self._context.counters.delivered += len(taken)
                    return taken

    async def _take(self, at_most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        try:
            if await self._reader.connect():
                taken = await self._undelivered()
            if not taken and trio.current_time() >= self._look_at:
                taken = await self._take_over(at_most)
                # As many as there was room for: there may be more.
                self._look_at = trio.current_time() + (LOOK_INTERVAL if len(taken) < at_most else 0)
            return taken or await self._fresh(at_most)
        except trio.Cancelled:
            # Redis may deliver more until it sees the end of the connection, which nobody would give back.
            await self._reader.close_gracefully()
            raise
        except BaseException:
            await self._reader.disconnect()  # replies may be under way
            raise

    async def _undelivered(self) -> list[Delivery]:
        """Messages that Redis delivered to a connection that broke before they arrived."""
        rows = await self._reader.ask(WORK_PENDING(self._context.stream, args=self._consumer))
        return await self._deliveries((*row, None) for row in rows or () if row[0].decode() not in self._in_hand)

    async def _take_over(self, at_most: int) -> list[Delivery]:
        context = self._context
        why = context.codec.pack(NAMED, context.channel, {"why": "the worker died or was stopped, each time"})
        limits = (int(self._claim_after * 1000), at_most, self._max_deliveries, why, DEAD_LETTERS)
        command = WORK_TAKE_OVER(context.stream, context.dead, args=(*self._consumer, *limits))
        taken, buried = await self._reader.ask(command) or ((), ())
        self.settled.died += len(buried)
        for entry_id in buried:
            logger.error(
                "%s: message %s is a dead letter now: it was delivered %d times, and each time the worker died with it",
                context.channel,
                entry_id.decode(),
                self._max_deliveries,
            )
        return await self._deliveries(taken)

    async def _fresh(self, at_most: int) -> list[Delivery]:
        entries = await self._reader.read(">", at_most, min(BLOCK, LOOK_INTERVAL))
        if not entries:
            return []
        seconds, microseconds = await self._reader.ask(("TIME",))
        oldest = (int(seconds) + int(microseconds) / 1e6 - self._context.expiry) * 1000
        in_time = []
        for entry_id, fields in entries:
            if int(entry_id.partition(b"-")[0]) >= oldest:
                in_time.append((entry_id, fields or [], 1, None))
            else:
                await self._expired(entry_id.decode())
        return await self._deliveries(in_time)

    async def _expired(self, entry_id: str) -> None:
        context = self._context
        await context.pipeline.call(*WORK_DONE(context.stream, args=(*self._consumer, entry_id)))
        self.settled.expired += 1
        context.counters.expired += 1
        logger.warning(
            "%s: message %s is lost: no worker took it within %g seconds (the layer's 'expiry')",
            context.channel,
            entry_id,
            context.expiry,
        )

    async def _deliveries(self, rows: Iterable[Any]) -> list[Delivery]:
        taken = []
        for entry_id, fields, count, owner in rows:
            name = entry_id.decode()
            self._in_hand[name] = True
            waited = owner is None or owner.decode() == RETRY_CONSUMER
            try:
                message = self._context.codec.unpack(blob_of(fields)).message
            except UndecodableEntry as error:
                self.settled.undecodable += 1
                logger.error("%s: message %s is a dead letter now: %s", self._context.channel, name, error)
                await self.bury(Delivery(name, {}, count), str(error))
            else:
                taken.append(Delivery(name, message, count, None if waited else owner.decode()))
        return taken

    async def done(self, delivery: Delivery) -> bool:
        """See :meth:`WorkSource.done`. Cancellation: seen only while Redis is away."""
        return await self._settle(delivery, WORK_DONE(self._context.stream, args=(*self._consumer, delivery.id)))

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """See :meth:`WorkSource.retry`. Cancellation: seen only while Redis is away."""
        idle = int(max(self._claim_after - delay, 0) * 1000)
        arguments = (*self._consumer, delivery.id, RETRY_CONSUMER, idle)
        await self._settle(delivery, WORK_RETRY(self._context.stream, args=arguments))

    async def bury(self, delivery: Delivery, why: str) -> None:
        """See :meth:`WorkSource.bury`. Cancellation: seen only while Redis is away."""
        context = self._context
        blob = context.codec.pack(NAMED, context.channel, {"why": why})
        arguments = (*self._consumer, delivery.id, delivery.count, blob, DEAD_LETTERS)
        await self._settle(delivery, WORK_BURY(context.stream, context.dead, args=arguments))

    async def _settle(self, delivery: Delivery, command: tuple[Argument, ...]) -> bool:
        """Run the command, through outages; returns whether the message still belonged to this worker."""
        while True:
            try:
                # Shielded: a command that was sent takes effect, and a cancelled caller would not learn its answer.
                with trio.CancelScope(shield=True):
                    answer = await self._context.pipeline.call(*command)
                break
            except ChannelLayerUnavailable as error:
                self._outage.goes_on(error)
                await trio.sleep(SETTLE_AGAIN)
        # The worker that took it over may have settled it already.
        ours = self._in_hand.pop(delivery.id, True) and answer != _TAKEN_OVER
        if answer == _DEAD_LETTER_DELETED:
            logger.warning("%s has %d dead letters; the oldest was lost", self._context.channel, DEAD_LETTERS)
        self.settled.superseded += not ours
        return ours

    async def renew(self) -> None:
        """Renew the messages in hand at intervals, until cancelled."""
        while True:
            await trio.sleep(self._claim_after / 3)
            ours = [entry_id for entry_id, mine in self._in_hand.items() if mine]
            if not ours:
                continue
            command = WORK_RENEW(self._context.stream, args=(*self._consumer, *ours))
            try:
                taken_over = await self._context.pipeline.call(*command)
            except ChannelLayerUnavailable as error:
                self._outage.goes_on(error)
                continue
            for entry_id in (row.decode() for row in taken_over):
                if entry_id in self._in_hand:
                    self._in_hand[entry_id] = False
                    logger.warning(
                        "%s: another worker has taken over message %s, as this one was silent for %g seconds. "
                        "The message may be handled twice.",
                        self._context.channel,
                        entry_id,
                        self._claim_after,
                    )

    async def leave(self) -> None:
        """Give back the messages in hand, for any worker to take at once.

        Cancellation: shielded, for at most the layer's ``timeout``.
        """
        await self._reader.close_gracefully()
        idle = int(self._claim_after * 1000)
        arguments = (*self._consumer, RETRY_CONSUMER, idle, int(FORGET_AFTER * 1000))
        with trio.CancelScope(shield=True):
            try:
                await self._context.pipeline.call(*WORK_LEAVE(self._context.stream, args=arguments))
            except ChannelLayerUnavailable as error:
                logger.warning(
                    "%s: %d messages could not be given back (%s); other workers take them over in %g seconds",
                    self._context.channel,
                    len(self._in_hand),
                    error,
                    self._claim_after,
                )


class _Outage:
    """Logs the beginning and the end of an outage, once each."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._since: float | None = None

    def goes_on(self, error: Exception) -> None:
        if self._since is None:
            self._since = trio.current_time()
            logger.warning("%s: the worker cannot reach Redis: %s. Trying again.", self._channel, error)

    def over(self) -> None:
        if self._since is not None:
            logger.info("%s: Redis is back after %.1f s", self._channel, trio.current_time() - self._since)
            self._since = None

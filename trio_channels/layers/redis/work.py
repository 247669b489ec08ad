"""What one worker takes of a named channel: messages that stay pending in its consumer group until they are settled.

The rules:

- Each source is a consumer of its own. What is pending for it is in hand here, or was on its way when a connection
  broke; the latter is fetched after the reconnect.
- What is in hand is renewed three times in the time after which another worker would take it over.
- What is to be tried again waits, with its number of deliveries, under a name that nobody reads under, until it counts
  as idle for long enough: then any worker takes it over.
- A message that was never handed out is lost after the layer's ``expiry``; one that was, never is.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from ..._concurrency.backoff import BackOff
from ...exceptions import ChannelLayerUnavailable, InvalidNameError
from ..message import Counters
from ..work import CLAIM_AFTER, MAX_DELIVERIES, DeadLetter, Delivery, Settled, WorkQueue, WorkSource
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
    WORK_REQUEUE,
    WORK_RETRY,
    WORK_TAKE_OVER,
)

logger = logging.getLogger("trio_channels.layers.redis")

#: The name under which messages wait for their next try. Nobody reads under it.
RETRY_CONSUMER = "again"
#: Dead letters that a channel keeps.
DEAD_LETTERS = 10_000
#: Seconds between two looks for messages of dead workers, and for those that are to be tried again.
LOOK_INTERVAL = 1.0
#: Seconds after which the name of a worker that died is forgotten.
FORGET_AFTER = 3600.0
#: Seconds between two tries to settle a message while Redis is away.
SETTLE_AGAIN = 0.5

_ALREADY_ANOTHERS, _DEAD_LETTER_LOST = 0, 3


@dataclass(frozen=True, slots=True)
class WorkContext:
    """What a queue needs of its layer.

    Args:
        channel: the channel's name.
        stream: its key.
        pipeline: of its shard.
        codec: of the layer.
        expiry, group_expiry: of the layer, in seconds.
        make_reader: makes a reader of the stream, under a name.
        counters: of the layer.
        process: this process' id, for the names of its readers.
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
        """The key of the dead letters."""
        return f"{self.stream}:dead"


class RedisWorkSource(WorkSource):
    """The messages that one worker takes; see :class:`~trio_channels.layers.base.WorkSource`."""

    def __init__(self, context: WorkContext, max_deliveries: int, claim_after: float) -> None:
        self.settled = Settled()
        self._context = context
        self._max_deliveries = max_deliveries
        self._claim_after = claim_after
        self._worker = f"{context.process}.{secrets.token_hex(4)}"
        self._reader = context.make_reader(self._worker)
        self._in_hand: dict[str, bool] = {}  # id -> whether it is still ours
        self._look_at = -math.inf
        self._outage = _Outage(context.channel)

    def __repr__(self) -> str:
        return f"<RedisWorkSource {self._context.channel} as {self._worker}, {len(self._in_hand)} in hand>"

    # -- taking ---------------------------------------------------------------------------------------------------

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
                taken = await self._orphans()
            if not taken and trio.current_time() >= self._look_at:
                taken = await self._take_over(at_most)
                # There may be more, if this was as many as there was room for.
                self._look_at = trio.current_time() + (LOOK_INTERVAL if len(taken) < at_most else 0)
            return taken or await self._fresh(at_most)
        except trio.Cancelled:
            # What Redis hands out from now on, nobody would give back.
            await self._reader.close_gracefully()
            raise
        except BaseException:
            await self._reader.disconnect()  # replies may be on their way
            raise

    async def _orphans(self) -> list[Delivery]:
        """What Redis handed out to a connection that broke before it came here."""
        rows = await self._reader.ask(WORK_PENDING(self._context.stream, args=(CONSUMER_GROUP, self._worker)))
        return await self._deliveries((*row, None) for row in rows or () if row[0].decode() not in self._in_hand)

    async def _take_over(self, at_most: int) -> list[Delivery]:
        context = self._context
        why = context.codec.pack(NAMED, context.channel, {"why": "each time the worker died, or was stopped, with it"})
        limits = (int(self._claim_after * 1000), at_most, self._max_deliveries, why, DEAD_LETTERS)
        command = WORK_TAKE_OVER(context.stream, context.dead, args=(CONSUMER_GROUP, self._worker, *limits))
        taken, buried = await self._reader.ask(command) or ((), ())
        self.settled.died += len(buried)
        for entry_id in buried:
            logger.error(
                "%s: message %s was delivered %d times, and each time the worker died with it; it is a dead letter now",
                context.channel,
                entry_id.decode(),
                self._max_deliveries,
            )
        return await self._deliveries(taken)

    async def _fresh(self, at_most: int) -> list[Delivery]:
        context = self._context
        entries = await self._reader.read(">", at_most, min(BLOCK, LOOK_INTERVAL))
        if not entries:
            return []
        seconds, microseconds = await self._reader.ask(("TIME",))
        oldest = (int(seconds) + int(microseconds) / 1e6 - context.expiry) * 1000
        in_time = []
        for entry_id, fields in entries:
            if int(entry_id.partition(b"-")[0]) >= oldest:
                in_time.append((entry_id, fields or [], 1, None))
            else:
                await self._expired(entry_id.decode())
        return await self._deliveries(in_time)

    async def _expired(self, entry_id: str) -> None:
        context = self._context
        await context.pipeline.call(*WORK_DONE(context.stream, args=(CONSUMER_GROUP, self._worker, entry_id)))
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

    # -- settling -------------------------------------------------------------------------------------------------

    async def done(self, delivery: Delivery) -> bool:
        """See :meth:`WorkSource.done`. Cancellation: seen only while Redis is away."""
        return await self._settle(
            delivery, WORK_DONE(self._context.stream, args=(CONSUMER_GROUP, self._worker, delivery.id))
        )

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """See :meth:`WorkSource.retry`. Cancellation: seen only while Redis is away."""
        idle = int(max(self._claim_after - delay, 0) * 1000)
        await self._settle(
            delivery,
            WORK_RETRY(self._context.stream, args=(CONSUMER_GROUP, self._worker, delivery.id, RETRY_CONSUMER, idle)),
        )

    async def bury(self, delivery: Delivery, why: str) -> None:
        """See :meth:`WorkSource.bury`. Cancellation: seen only while Redis is away."""
        context = self._context
        blob = context.codec.pack(NAMED, context.channel, {"why": why})
        arguments = (CONSUMER_GROUP, self._worker, delivery.id, delivery.count, blob, DEAD_LETTERS)
        await self._settle(delivery, WORK_BURY(context.stream, context.dead, args=arguments))

    async def _settle(self, delivery: Delivery, command: tuple[Argument, ...]) -> bool:
        """Have it done, through outages; returns whether the message was still ours."""
        while True:
            try:
                # A command that was sent takes effect: whoever is cancelled now would not know it.
                with trio.CancelScope(shield=True):
                    answer = await self._context.pipeline.call(*command)
                break
            except ChannelLayerUnavailable as error:
                self._outage.goes_on(error)
                await trio.sleep(SETTLE_AGAIN)
        # Who has taken it over may have settled it before us.
        ours = self._in_hand.pop(delivery.id, True) and answer != _ALREADY_ANOTHERS
        if answer == _DEAD_LETTER_LOST:
            logger.warning("%s has %d dead letters; the oldest was lost", self._context.channel, DEAD_LETTERS)
        self.settled.superseded += not ours
        return ours

    # -- keeping --------------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Tell Redis time and again what is in hand, until cancelled."""
        while True:
            await trio.sleep(self._claim_after / 3)
            ours = [entry_id for entry_id, mine in self._in_hand.items() if mine]
            if ours:
                try:
                    lost = await self._context.pipeline.call(
                        *WORK_RENEW(self._context.stream, args=(CONSUMER_GROUP, self._worker, *ours))
                    )
                except ChannelLayerUnavailable as error:
                    self._outage.goes_on(error)
                    continue
                for entry_id in (row.decode() for row in lost):
                    if entry_id in self._in_hand:
                        self._in_hand[entry_id] = False
                        logger.warning(
                            "%s: another worker has taken message %s over: this one was silent for %g seconds. The "
                            "message may be handled twice.",
                            self._context.channel,
                            entry_id,
                            self._claim_after,
                        )

    async def leave(self) -> None:
        """Give back what is in hand; any worker may take it at once. Shielded, for the layer's time limit."""
        await self._reader.close_gracefully()
        context, idle = self._context, int(self._claim_after * 1000)
        arguments = (CONSUMER_GROUP, self._worker, RETRY_CONSUMER, idle, int(FORGET_AFTER * 1000))
        with trio.CancelScope(shield=True):
            try:
                await context.pipeline.call(*WORK_LEAVE(context.stream, args=arguments))
            except ChannelLayerUnavailable as error:
                logger.warning(
                    "%s: %d messages could not be given back (%s); others take them over in %g seconds",
                    context.channel,
                    len(self._in_hand),
                    error,
                    self._claim_after,
                )


class _Outage:
    """Says once that there is one, and once that it is over."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._since: float | None = None

    def goes_on(self, error: Exception) -> None:
        if self._since is None:
            self._since = trio.current_time()
            logger.warning("%s: the worker cannot reach Redis: %s. Trying again until it can.", self._channel, error)

    def over(self) -> None:
        if self._since is not None:
            logger.info("%s: Redis is back after %.1f s", self._channel, trio.current_time() - self._since)
            self._since = None


class RedisWorkQueue(WorkQueue):
    """One named channel; see :class:`~trio_channels.layers.base.WorkQueue`.

    Args:
        context: looks up what it needs, anew with each call: the layer may be closed meanwhile.
    """

    def __init__(self, context: Callable[[], WorkContext]) -> None:
        self._context = context

    @asynccontextmanager
    async def serve(
        self, *, max_deliveries: int = MAX_DELIVERIES, claim_after: float = CLAIM_AFTER
    ) -> AsyncIterator[WorkSource]:
        """See :meth:`WorkQueue.serve`.

        Raises:
            ChannelLayerUnavailable: the layer is not open.
        """
        source = RedisWorkSource(self._context(), max_deliveries, claim_after)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.renew)
            try:
                yield source
            finally:
                nursery.cancel_scope.cancel()
                await source.leave()

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """See :meth:`WorkQueue.dead_letters`.

        Raises:
            ChannelLayerUnavailable: the layer is not open, or Redis did not answer in time.
        """
        context = self._context()
        rows = await context.pipeline.call("XRANGE", context.dead, "-", "+", "COUNT", limit)
        return [_dead_letter(context.codec, entry_id, fields) for entry_id, fields in rows]

    async def requeue(self, *ids: str) -> int:
        """See :meth:`WorkQueue.requeue`. Raises as :meth:`dead_letters`, and InvalidNameError for what is no id.

        Cancellation: each one is either a dead letter or in the channel.
        """
        context = self._context()
        expiry = int(context.group_expiry * 1000)
        chosen = _ids(ids) or await self._all_dead(context)
        return int(await context.pipeline.call(*WORK_REQUEUE(context.stream, context.dead, args=(expiry, *chosen))))

    async def discard(self, *ids: str) -> int:
        """See :meth:`WorkQueue.discard`. Raises as :meth:`dead_letters`.

        Cancellation: they may be discarded or not.
        """
        context = self._context()
        chosen = _ids(ids) or await self._all_dead(context)
        return int(await context.pipeline.call("XDEL", context.dead, *chosen)) if chosen else 0

    async def _all_dead(self, context: WorkContext) -> tuple[str, ...]:
        rows = await context.pipeline.call("XRANGE", context.dead, "-", "+", "COUNT", DEAD_LETTERS)
        return tuple(row[0].decode() for row in rows)


def _ids(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        if not re.fullmatch(r"\d+-\d+", one):
            raise InvalidNameError(f"the id of a dead letter is as '1700000000000-0'; got {one!r}")
    return given


def _dead_letter(codec: EntryCodec, entry_id: bytes, fields: list[bytes]) -> DeadLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return DeadLetter(
        id=entry_id.decode(),
        message=_message(codec, values.get(b"b")),
        deliveries=int(values.get(b"n", 0)),
        why=str((_message(codec, values.get(b"w")) or {}).get("why", "not known")),
    )


def _message(codec: EntryCodec, blob: bytes | None) -> dict[str, Any] | None:
    try:
        return codec.unpack(blob).message
    except UndecodableEntry:
        return None

"""Named channels of the in-memory layer as queues for workers of the same process.

New messages wait in the channel's mailbox; messages to be retried wait in the queue.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ..work import CLAIM_AFTER, MAX_DELIVERIES, DeadLetter, Delivery, QueueSize, Settled, WorkQueue, WorkSource

if TYPE_CHECKING:
    from . import InMemoryChannelLayer

logger = logging.getLogger("trio_channels.layers.memory")

#: Dead letters that a channel keeps; beyond that the oldest are lost.
DEAD_LETTERS = 10_000


@dataclass(order=True, slots=True)
class _Waiting:
    """A delivery that may be taken again at the Trio time `due`; `number` keeps the order among equals."""

    due: float
    number: int
    delivery: Delivery = field(compare=False)


class MemoryWorkQueue(WorkQueue):
    """One named channel of an in-memory layer."""

    def __init__(self, layer: InMemoryChannelLayer, channel: str) -> None:
        self.layer = layer
        self.channel = channel
        self._numbers = itertools.count(1)
        self._retries: list[_Waiting] = []
        self._sources: set[MemoryWorkSource] = set()
        self._dead: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS)

    def __repr__(self) -> str:
        return f"<MemoryWorkQueue {self.channel}, {len(self._retries)} to retry, {len(self._dead)} dead letters>"

    @asynccontextmanager
    async def serve(
        self, *, max_deliveries: int = MAX_DELIVERIES, claim_after: float = CLAIM_AFTER
    ) -> AsyncIterator[MemoryWorkSource]:
        """See :meth:`WorkQueue.serve`. Sources and queue die together, so that no message is ever taken over."""
        source = MemoryWorkSource(self)
        await trio.lowlevel.checkpoint()
        self._sources.add(source)
        try:
            yield source
        finally:
            self._sources.discard(source)
            for delivery in source.in_hand.values():
                self.retry(replace(delivery, count=delivery.count - 1), 0)

    def next_id(self) -> str:
        """An id that is unique in this channel."""
        return str(next(self._numbers))

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Deliver a message once more, after a delay in seconds."""
        again = replace(delivery, count=delivery.count + 1)
        heapq.heappush(self._retries, _Waiting(trio.current_time() + delay, next(self._numbers), again))

    def take_due(self) -> Delivery | None:
        """Take a message whose next delivery is due, if there is one."""
        return heapq.heappop(self._retries).delivery if self.next_due <= trio.current_time() else None

    @property
    def next_due(self) -> float:
        """The Trio time of the next retry; infinite if there is none."""
        return self._retries[0].due if self._retries else math.inf

    def add_dead(self, letter: DeadLetter) -> None:
        """Keep a dead letter; beyond :data:`DEAD_LETTERS` the oldest is lost."""
        if len(self._dead) == self._dead.maxlen:
            logger.warning("%s has %d dead letters; the oldest was lost", self.channel, self._dead.maxlen)
        self._dead.append(letter)

    async def size(self) -> QueueSize:
        """See :meth:`WorkQueue.size`. Cancellation: changes nothing."""
        await trio.lowlevel.checkpoint()
        taken = sum(len(source.in_hand) for source in self._sources)
        return QueueSize(self.layer.waiting_in(self.channel) + taken + len(self._retries), len(self._dead))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """See :meth:`WorkQueue.dead_letters`. Cancellation: changes nothing."""
        await trio.lowlevel.checkpoint()
        return list(itertools.islice(self._dead, limit))

    async def requeue(self, *ids: str) -> int:
        """See :meth:`WorkQueue.requeue`. Cancellation: atomic."""
        await trio.lowlevel.checkpoint()
        letters = self._take_dead(ids)
        for letter in letters:
            self.retry(Delivery(self.next_id(), letter.message or {}, 0), 0)
        return len(letters)

    async def discard(self, *ids: str) -> int:
        """See :meth:`WorkQueue.discard`. Cancellation: atomic."""
        await trio.lowlevel.checkpoint()
        return len(self._take_dead(ids))

    def _take_dead(self, ids: tuple[str, ...]) -> list[DeadLetter]:
        taken = [letter for letter in self._dead if not ids or letter.id in ids]
        self._dead = deque((letter for letter in self._dead if letter not in taken), DEAD_LETTERS)
        return taken


class MemoryWorkSource(WorkSource):
    """See :class:`WorkSource`."""

    def __init__(self, queue: MemoryWorkQueue) -> None:
        self.settled = Settled()
        self.in_hand: dict[str, Delivery] = {}
        self._queue = queue

    async def take(self, at_most: int) -> list[Delivery]:
        """See :meth:`WorkSource.take`. Cancellation: loses nothing."""
        queue = self._queue
        await trio.lowlevel.checkpoint_if_cancelled()
        taken: list[Delivery] = []
        while not taken:
            while len(taken) < at_most and (delivery := queue.take_due()) is not None:
                taken.append(delivery)
            if not taken:
                # Another source may add a retry meanwhile: look for one at least once a second.
                with trio.move_on_at(min(queue.next_due, trio.current_time() + 1)):
                    message = await queue.layer.receive(queue.channel)
                    taken.append(Delivery(queue.next_id(), message))
        self.in_hand.update({delivery.id: delivery for delivery in taken})
        return taken

    async def done(self, delivery: Delivery) -> bool:
        """See :meth:`WorkSource.done`. Cancellation: not seen."""
        await self._settle(delivery)
        return True

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """See :meth:`WorkSource.retry`. Cancellation: not seen."""
        await self._settle(delivery)
        self._queue.retry(delivery, delay)

    async def bury(self, delivery: Delivery, why: str) -> None:
        """See :meth:`WorkSource.bury`. Cancellation: not seen."""
        await self._settle(delivery)
        self._queue.add_dead(DeadLetter(delivery.id, delivery.message, delivery.count, why))

    async def _settle(self, delivery: Delivery) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        self.in_hand.pop(delivery.id, None)

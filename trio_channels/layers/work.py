"""What a worker needs of a channel layer: named channels as queues, whose messages are acknowledged.

The rules that every backend keeps:

- A message that was taken belongs to its taker, who settles it: done, to be tried again, or a dead letter.
- What a taker leaves unsettled, whether by its end or by its death, is given to another one, and counted as one more
  delivery only if it died. A message whose taker died for the last time is a dead letter.
- Delivery is therefore at least once: whoever was taken for dead may have finished after all.
"""

from __future__ import annotations

import abc
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .._asgi.protocol import Message

__all__ = ["DeadLetter", "Delivery", "Settled", "WorkQueue", "WorkSource"]

#: Deliveries after which a message is a dead letter.
MAX_DELIVERIES = 5
#: Seconds for which a taker may be silent before its messages are given to another one.
CLAIM_AFTER = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was taken and is to be settled.

    Args:
        id: of the message in its queue; the same with each delivery.
        message: what was sent.
        count: which delivery it is; 1 for the first.
        taken_from: the process that died with it, where that is why it is delivered again.
    """

    id: str
    message: Message
    count: int = 1
    taken_from: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was delivered in vain too often.

    Args:
        id: among the dead letters.
        message: what was sent; None where it cannot be decoded.
        deliveries: how often it was delivered.
        why: the last failure, in one line.
    """

    id: str
    message: Message | None
    deliveries: int
    why: str


@dataclass(slots=True)
class Settled:
    """What a source has seen beside its deliveries; counted up.

    Args:
        expired: messages that had waited longer than the layer's ``expiry``, and were lost.
        died: messages that became dead letters because their takers died with them.
        undecodable: messages that became dead letters because they could not be decoded.
        superseded: messages that another process had taken over before they were settled here.
    """

    expired: int = 0
    died: int = 0
    undecodable: int = 0
    superseded: int = 0


class WorkSource(abc.ABC):
    """The messages of one named channel, for one worker.

    Attributes:
        settled: what happened beside the deliveries.
    """

    settled: Settled

    @abc.abstractmethod
    async def take(self, at_most: int) -> list[Delivery]:
        """Wait for messages; returns at least one. Outages of the backend are waited for.

        Cancellation: loses nothing; what was on its way is given to another taker, or to the next call.
        """

    @abc.abstractmethod
    async def done(self, delivery: Delivery) -> bool:
        """The message has been handled; returns False if another process has taken it over meanwhile.

        Outages of the backend are waited for.

        Cancellation: seen only while the backend is away.
        """

    @abc.abstractmethod
    async def retry(self, delivery: Delivery, delay: float) -> None:
        """Deliver the message again, to any worker, after so many seconds.

        Cancellation: as of :meth:`done`.
        """

    @abc.abstractmethod
    async def bury(self, delivery: Delivery, why: str) -> None:
        """Make the message a dead letter, with one line about the reason.

        Cancellation: as of :meth:`done`.
        """


class WorkQueue(abc.ABC):
    """One named channel of a channel layer, as work for workers."""

    @abc.abstractmethod
    def serve(
        self, *, max_deliveries: int = MAX_DELIVERIES, claim_after: float = CLAIM_AFTER
    ) -> AbstractAsyncContextManager[WorkSource]:
        """Take messages, for the length of an ``async with`` block; those left unsettled at its end go to others.

        Args:
            max_deliveries: after so many, a message whose taker died is a dead letter.
            claim_after: seconds for which a taker may be silent before it counts as dead.
        """

    @abc.abstractmethod
    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters.

        Args:
            limit: how many at the most.

        Raises:
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: changes nothing.
        """

    @abc.abstractmethod
    async def requeue(self, *ids: str) -> int:
        """Send dead letters to their channel again, as new messages; all of them where no id is given.

        Returns how many there were. Raises as :meth:`dead_letters`.

        Cancellation: each one is either a dead letter or in the channel.
        """

    @abc.abstractmethod
    async def discard(self, *ids: str) -> int:
        """Forget dead letters; all of them where no id is given. Returns how many there were.

        Raises as :meth:`dead_letters`.

        Cancellation: some may have gone.
        """

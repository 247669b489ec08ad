"""Named channels as queues of acknowledged messages: the interface between workers and channel layers.

The rules that every backend keeps:

- A delivered message belongs to the source that took it. The source settles it: done, to be retried, or a dead letter.
- Messages that a source leaves unsettled go to another source. That counts as one more delivery if the process died,
  and does not if the source ended. A message whose process died in its last allowed delivery becomes a dead letter.
- Delivery is therefore at least once: a process that was taken for dead may have finished a message.
"""

from __future__ import annotations

import abc
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .._asgi.protocol import Message

__all__ = ["DeadLetter", "Delivery", "QueueSize", "Settled", "WorkQueue", "WorkSource"]

#: Deliveries after which a message is a dead letter.
MAX_DELIVERIES = 5
#: Seconds of silence after which a process counts as dead, and its messages go to another one.
CLAIM_AFTER = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a source has taken and must settle.

    Args:
        id: of the message in its queue; the same in each delivery.
        message: the message as sent.
        count: the number of this delivery, from 1.
        taken_from: the process that died with the message, if it is delivered again for that reason.
    """

    id: str
    message: Message
    count: int = 1
    taken_from: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message whose deliveries have all failed.

    Args:
        id: of the dead letter; not the message's.
        message: the message as sent; None if it cannot be decoded.
        deliveries: the number of its deliveries.
        why: the last failure, in one line.
    """

    id: str
    message: Message | None
    deliveries: int
    why: str


@dataclass(frozen=True, slots=True)
class QueueSize:
    """The size of a queue: messages that are not done, and dead letters."""

    backlog: int
    dead: int


@dataclass(slots=True)
class Settled:
    """Running totals of a source, beside its deliveries.

    Args:
        expired: messages that waited longer than the layer's ``expiry``, and were lost.
        died: messages that became dead letters because the processes that took them died.
        undecodable: messages that became dead letters because they could not be decoded.
        superseded: messages that another process took over before they were settled here.
    """

    expired: int = 0
    died: int = 0
    undecodable: int = 0
    superseded: int = 0


class WorkSource(abc.ABC):
    """The messages of one named channel, for one worker.

    Attributes:
        settled: running totals beside the deliveries.
    """

    settled: Settled

    @abc.abstractmethod
    async def take(self, at_most: int) -> list[Delivery]:
        """Wait for messages, and take them. An outage of the backend prolongs the wait.

        Args:
            at_most: the largest number of messages to take; the result holds at least one.

        Cancellation: loses nothing; messages on their way go to another source, or to the next call.
        """

    @abc.abstractmethod
    async def done(self, delivery: Delivery) -> bool:
        """Acknowledge a handled message. Returns False if another process has taken it over meanwhile.

        Waits for the end of an outage of the backend.

        Cancellation: seen only while the backend is away.
        """

    @abc.abstractmethod
    async def retry(self, delivery: Delivery, delay: float) -> None:
        """Deliver the message again, to any worker.

        Args:
            delivery: the failed delivery.
            delay: seconds before the next one.

        Cancellation: as :meth:`done`.
        """

    @abc.abstractmethod
    async def bury(self, delivery: Delivery, why: str) -> None:
        """Make the message a dead letter.

        Args:
            delivery: the failed delivery.
            why: the reason, in one line.

        Cancellation: as :meth:`done`.
        """


class WorkQueue(abc.ABC):
    """One named channel of a channel layer, as a queue of workers."""

    @abc.abstractmethod
    def serve(
        self, *, max_deliveries: int = MAX_DELIVERIES, claim_after: float = CLAIM_AFTER
    ) -> AbstractAsyncContextManager[WorkSource]:
        """A source of messages for the length of an ``async with`` block; unsettled messages then go to other sources.

        Args:
            max_deliveries: deliveries after which a message whose process died becomes a dead letter.
            claim_after: seconds of silence after which a process counts as dead.
        """

    @abc.abstractmethod
    async def size(self) -> QueueSize:
        """The size of the queue: messages that wait, are being handled, or are to be retried; and dead letters.

        Raises:
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: changes nothing.
        """

    @abc.abstractmethod
    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters.

        Args:
            limit: the largest number to return.

        Raises:
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: changes nothing.
        """

    @abc.abstractmethod
    async def requeue(self, *ids: str) -> int:
        """Send dead letters to their channel again, as new messages, and return their number.

        Args:
            ids: of the dead letters; all of them if no id is given.

        Raises as :meth:`dead_letters`.

        Cancellation: each one is either a dead letter or in the channel.
        """

    @abc.abstractmethod
    async def discard(self, *ids: str) -> int:
        """Delete dead letters, and return their number.

        Args:
            ids: of the dead letters; all of them if no id is given.

        Raises as :meth:`dead_letters`.

        Cancellation: some of them may have been deleted.
        """

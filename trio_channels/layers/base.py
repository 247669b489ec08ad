"""What a channel layer is: the interface that every backend implements, and the values that cross it."""

from __future__ import annotations

import abc
import fnmatch
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypedDict

from .._asgi.protocol import Message
from .._limits import CAPACITY, COUNT, OVERFLOW, SECONDS, Overflow, Rule
from ..exceptions import InvalidChannelLayerError
from .gap import Gap
from .work import DeadLetter, Delivery, Settled, WorkQueue, WorkSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from .envelope import Envelope
    from .mailbox import Mailbox

__all__ = [
    "ChannelLayer",
    "DeadLetter",
    "Delivery",
    "Gap",
    "LayerOptions",
    "LayerStatistics",
    "Overflow",
    "Settled",
    "WorkQueue",
    "WorkSource",
]

#: Channels' defaults: seconds a message may wait, seconds an abandoned channel is kept, messages a channel holds.
EXPIRY, GROUP_EXPIRY = 60.0, 86_400.0


class LayerOptions(TypedDict, total=False):
    """What every channel layer can be configured with; see :class:`ChannelLayer`."""

    expiry: float
    group_expiry: float
    capacity: int
    channel_capacity: Mapping[str | re.Pattern[str], int] | None
    overflow: Overflow


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """A snapshot of one channel layer in this process.

    Args:
        channels: mailboxes that exist now.
        groups: groups with at least one member now.
        memberships: pairs of group and member now.
        waiting: messages in mailboxes now.
        sent: messages accepted by ``send`` since the layer was made.
        group_sent: messages accepted by ``group_send``.
        delivered: messages taken out of mailboxes.
        dropped: messages that a full mailbox lost.
        expired: messages that waited too long.
        full: ``send`` calls refused with ``ChannelFull``.
        gone: messages for a process-local channel that does not exist (any more).
        healthy: whether the layer works. False where its tasks go on crashing: it has ended its connections, takes no
            new ones, and the process should be replaced. An outage of the backend, which ends by itself, is not meant.
    """

    channels: int
    groups: int
    memberships: int
    waiting: int
    sent: int
    group_sent: int
    delivered: int
    dropped: int
    expired: int
    full: int
    gone: int
    healthy: bool = True


class ChannelLayer(abc.ABC):
    """Passes messages between connections, and between processes where the backend does.

    Args:
        expiry: seconds a message may wait in a mailbox before it counts as lost.
        group_expiry: seconds after which a channel made by :meth:`new_channel` that nobody uses is forgotten.
        capacity: messages a mailbox holds.
        channel_capacity: glob or compiled regular expression -> capacity, for channel names; the first match counts.
        overflow: what a full mailbox of a connection or subscriber does by default: ``close`` ends its owner
            (a WebSocket with 1013), ``drop_newest`` and ``drop_oldest`` lose messages and say so with a :class:`Gap`.

    Raises:
        InvalidChannelLayerError: an argument is out of range.

    Delivery is at most once. Per sender and group, messages arrive in the order sent. A message must be encodable (see
    :mod:`trio_channels.layers.codec`); receivers get a copy of it, whose nested values they share.
    """

    #: As in the channel layer specification; read by portable code.
    extensions = ("groups", "flush")

    def __init__(
        self,
        *,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        overflow: Overflow = "close",
    ) -> None:
        _require(SECONDS, "expiry", expiry)
        _require(SECONDS, "group_expiry", group_expiry)
        _require(COUNT, "capacity", capacity)
        _require(OVERFLOW, "overflow", overflow)
        self.expiry = float(expiry)
        self.group_expiry = float(group_expiry)
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self._capacities: list[tuple[re.Pattern[str], int]] = []
        capacities = {} if channel_capacity is None else channel_capacity
        _require(_CAPACITIES, "channel_capacity", capacities)
        for pattern, limit in capacities.items():
            _require(_PATTERN, "a key of channel_capacity", pattern)
            _require(COUNT, f"channel_capacity[{pattern!r}]", limit)
            compiled = re.compile(fnmatch.translate(pattern)) if isinstance(pattern, str) else pattern
            self._capacities.append((compiled, limit))

    def get_capacity(self, channel: str) -> int:
        """How many messages a mailbox of that channel name holds."""
        for pattern, limit in self._capacities:
            if pattern.match(channel):
                return limit
        return self.capacity

    async def __aenter__(self) -> Self:
        """Open the layer; layers without a backend need no opening."""
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close the layer as :meth:`close` does."""
        await self.close()

    # -- messages to one channel ----------------------------------------------------------------------------------

    @abc.abstractmethod
    async def send(self, channel: str, message: Message) -> None:
        """Send a message to one channel.

        Args:
            channel: of a connection (its ``channel_name``), of :meth:`new_channel`, or a named one.
            message: a dict whose ``type`` names the handler.

        Raises:
            ChannelFull: the channel holds as many messages as it may; this one was not accepted.
            InvalidNameError: the channel name breaks the rules.
            MessageNotEncodable: the message cannot travel.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: in memory atomic. With a backend, a message that is on its way may arrive.
        """

    @abc.abstractmethod
    async def receive(self, channel: str) -> Message:
        """Wait for the next message on a channel of this process, or on a named channel.

        Several tasks may wait on one channel; each message goes to one of them.

        Args:
            channel: of :meth:`new_channel`, or a named one.

        Raises:
            InvalidNameError: the channel name breaks the rules.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: loses no message.
        """

    @abc.abstractmethod
    async def new_channel(self, prefix: str = "specific") -> str:
        """Make a process-local channel and return its name, for use with :meth:`receive`.

        Connections and subscribers do not need it: theirs end with them. One made here is forgotten when nobody has
        used it for ``group_expiry`` seconds.

        Args:
            prefix: the first part of the name.

        Cancellation: makes none.
        """

    # -- groups ---------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group; a member once, however often it is added.

        Args:
            group: 1 to 99 ASCII letters, digits, hyphens, underscores and periods.
            channel: of a connection, or of :meth:`new_channel`.

        Raises:
            InvalidNameError: a name breaks the rules.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: in memory atomic. With a backend, the membership may stand.
        """

    @abc.abstractmethod
    async def group_discard(self, group: str, channel: str) -> None:
        """End a membership; nothing happens where there is none.

        Args and Raises: as of :meth:`group_add`.

        Cancellation: atomic.
        """

    @abc.abstractmethod
    async def group_send(self, group: str, message: Message) -> None:
        """Send a message to every member of a group. Never fails because of a member that is full.

        Args:
            group: its name. A group without members is no error.
            message: a dict whose ``type`` names the handler.

        Raises:
            InvalidNameError: the group name breaks the rules.
            MessageNotEncodable: the message cannot travel.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: in memory atomic, all members or none. With a backend, a message that is on its way may arrive.
        """

    # -- owners of mailboxes --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def open_mailbox(
        self,
        *,
        ring: Callable[[], None] | None = None,
        offer: Callable[[Envelope], bool] | None = None,
        overflow: Overflow | None = None,
        prefix: str = "specific",
    ) -> AbstractContextManager[Mailbox]:
        """A mailbox for the length of a ``with`` block; its memberships end with it.

        Args:
            ring: called after something was put in, in the mailbox' Trio run; it must not block. What a task that waits
                in ``get`` is given is not put in.
            offer: called instead, in the mailbox' Trio run, with a message that nothing waits before; returns whether
                the owner was waiting for it and has it now. If not it is put in.
            overflow: instead of the layer's default.
            prefix: the first part of the channel name.
        """

    @abc.abstractmethod
    def subscribe(
        self, *groups: str, overflow: Overflow | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Message | Gap]]:
        """Membership that cannot leak: ``async with layer.subscribe("room") as events: async for event in events``.

        Yields the groups' messages, and a :class:`Gap` where some are missing.

        Args:
            groups: whose messages to get.
            overflow: instead of the layer's rule.

        Raises:
            MailboxOverflow: from the iteration, with ``overflow="close"``, when the subscriber fell behind.

        Cancellation: a cancelled iteration loses no message.
        """

    # -- named channels as work for workers -----------------------------------------------------------------------

    def work_queue(self, channel: str) -> WorkQueue:
        """A named channel as work for workers; see :class:`trio_channels.worker.Worker`.

        Raises:
            InvalidChannelLayerError: the layer has no named channels for workers.
            InvalidNameError: the channel name breaks the rules, or is of a process-local channel.
        """
        raise InvalidChannelLayerError(
            f"{type(self).__name__} has no named channels for workers: it has no method work_queue(). Use "
            f"trio_channels.layers.redis.RedisStreamsChannelLayer"
        )

    # -- the layer itself -----------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def flush(self) -> None:
        """Forget every message and group membership; who loses messages is told with a :class:`Gap`.

        Cancellation: seen before it begins; then it is completed.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release what the layer holds in this Trio run. Idempotent.

        Cancellation: what a backend still holds expires by itself.
        """

    @abc.abstractmethod
    def statistics(self) -> LayerStatistics:
        """An immutable snapshot."""


_CAPACITIES = Rule("a dict of pattern and capacity", lambda value: isinstance(value, Mapping))
_PATTERN = Rule(
    "a glob or compiled expression of str",
    lambda value: isinstance(value.pattern if isinstance(value, re.Pattern) else value, str),
)


def _require(rule: Rule, name: str, value: object) -> None:
    rule.require(f"{name} of a channel layer", value, InvalidChannelLayerError)

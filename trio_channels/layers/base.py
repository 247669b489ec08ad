"""The interface that every channel layer implements, and the values that cross it."""

from __future__ import annotations

import abc
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Self

from .._asgi.content import NOT_GIVEN, broadcast_message
from .._asgi.protocol import Message
from .._limits import CAPACITY, COUNT, OVERFLOW, SECONDS, Overflow
from ..exceptions import InvalidChannelLayerError
from .guard import refuse_channels
from .history import History, HistoryOptions, HistoryRules, Recovery, no_history
from .mailbox import Mailbox
from .message import Envelope, Gap
from .options import EXPIRY, GROUP_EXPIRY, LayerOptions
from .patterns import Patterns, require
from .presence.interface import PresenceMethods
from .presence.options import PresenceOptions, presence_limits
from .statistics import LayerStatistics
from .subscription import Subscription
from .validation import NameChecks
from .work import DeadLetter, Delivery, QueueSize, Settled, WorkQueue, WorkSource

__all__ = [
    "ChannelLayer",
    "DeadLetter",
    "Delivery",
    "Gap",
    "History",
    "HistoryOptions",
    "LayerOptions",
    "LayerStatistics",
    "Overflow",
    "QueueSize",
    "Recovery",
    "Settled",
    "Subscription",
    "WorkQueue",
    "WorkSource",
]


class ChannelLayer(PresenceMethods, NameChecks, abc.ABC):
    """Passes messages between connections, and between processes where the backend does.

    Args:
        expiry: seconds a message may wait in a mailbox before it counts as lost; 60 by default.
        group_expiry: seconds after which an unused channel of :meth:`new_channel` leaves its groups, and an unused
            named channel is forgotten; a day by default.
        capacity: messages a mailbox holds; 100 by default.
        channel_capacity: glob or compiled regular expression -> capacity, for channel names; the first match counts.
        overflow: the rule for a full mailbox of a connection or subscriber. ``close`` (the default) ends its owner,
            a WebSocket with 1013. ``drop_newest`` and ``drop_oldest`` drop messages, and report them with a
            :class:`Gap`.
        history: the same for group names -> ``{"messages": 200, "seconds": 3600}``: groups that keep their latest
            messages, so many, for so long.
        presence: the limits of presence; see :class:`~trio_channels.layers.presence.PresenceOptions`.

    Raises:
        InvalidChannelLayerError: an argument is out of range, or the layer keeps no history.

    Delivery is at most once. Per sender and group, messages arrive in the order sent. A message must be encodable (see
    :mod:`trio_channels.layers.message`). Each receiver gets a shallow copy; the receivers share nested values.
    """

    #: The extensions of the channel layer specification that this layer implements; and ``history``.
    extensions: tuple[str, ...] = ("groups", "flush")

    def __init__(
        self,
        *,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        overflow: Overflow = "close",
        history: Mapping[str | re.Pattern[str], HistoryOptions] | None = None,
        presence: PresenceOptions | None = None,
    ) -> None:
        refuse_channels()
        require(SECONDS, "expiry", expiry)
        require(SECONDS, "group_expiry", group_expiry)
        require(COUNT, "capacity", capacity)
        require(OVERFLOW, "overflow", overflow)
        self.expiry = float(expiry)
        self.group_expiry = float(group_expiry)
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self._capacities = Patterns("channel_capacity", channel_capacity, _to_capacity)
        self._histories = HistoryRules(history)
        if self._histories and "history" not in self.extensions:
            raise no_history(self)
        self.presence_limits = presence_limits(presence)

    def get_capacity(self, channel: str) -> int:
        """The capacity of a mailbox with that channel name, in messages."""
        capacity = self._capacities.find(channel)
        return self.capacity if capacity is None else capacity

    def has_history(self, group: str) -> bool:
        """Whether a group keeps its latest messages: a pattern of the option ``history`` matches it."""
        return self._histories.of(group) is not None

    async def __aenter__(self) -> Self:
        """Open the layer; a layer without a backend needs no opening. Cancellation: leaves nothing open."""
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close the layer. Cancellation: as :meth:`close`."""
        await self.close()

    @asynccontextmanager
    async def open_patiently(self) -> AsyncIterator[Self]:
        """As ``async with layer:``, for a server, which starts without its backend.

        A backend that is away is no error: the layer connects when it is there, and until then its calls raise
        ChannelLayerUnavailable. Errors that waiting does not help against are raised. By default it is the same block.

        Cancellation: leaves nothing open.
        """
        async with self:
            yield self

    @abc.abstractmethod
    async def send(self, channel: str, message: Message) -> None:
        """Send a message to one channel.

        Args:
            channel: a connection's ``channel_name``, the name of a :meth:`new_channel`, or a named channel.
            message: a dict whose ``type`` names the handler.

        Raises:
            ChannelFull: the channel is at its capacity; the message was not accepted.
            InvalidNameError: the channel name breaks the rules.
            MessageNotEncodable: the message holds a value that cannot be encoded.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: in memory atomic. With a backend, a message that is on its way may arrive.
        """

    @abc.abstractmethod
    async def receive(self, channel: str) -> Message:
        """Wait for the next message on a channel of this process, or on a named channel.

        Several tasks may wait on one channel; each message goes to one of them.

        Args:
            channel: the name of a :meth:`new_channel`, or a named channel.

        Raises:
            InvalidNameError: the channel name breaks the rules.
            ForeignChannel: the channel belongs to another process or Trio run.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: loses no message.
        """

    @abc.abstractmethod
    async def new_channel(self, prefix: str = "specific") -> str:
        """Make a process-local channel and return its name, for use with :meth:`receive`.

        Connections and subscribers do not need it: they have channels that end with them. A channel made here costs
        nothing while no message waits; it leaves its groups after ``group_expiry`` seconds without use.

        Args:
            prefix: the first part of the name.

        Cancellation: atomic; a cancelled call makes no channel.
        """

    @abc.abstractmethod
    async def group_add(self, group: str, channel: str, *, since: str | None = None) -> Recovery:
        """Make a channel a member of a group. Adding a member again changes nothing.

        With a position, the member first gets the messages behind it, and then the live ones, without a hole or a
        double. They do not count against the mailbox' capacity. Where that is not possible, the member gets a
        :class:`Gap` in their place, with the reason ``not recovered``.

        Args:
            group: 1 to 99 ASCII letters, digits, hyphens, underscores and periods.
            channel: a connection's ``channel_name``, or the name of a :meth:`new_channel`; with `since` in this run.
            since: the position of the last message that the receiver has seen; it may come from a client.

        Returns:
            Whether the position was recovered, and the position where the membership begins.

        Raises:
            InvalidNameError: a name breaks the rules.
            InvalidChannelLayerError: `since` was given, and the channel is a member already.
            ChannelLayerUnavailable: the backend did not answer in time. A membership of a group with history has not
                begun then.

        Cancellation: in memory atomic. With a backend, the channel may have become a member of a group without
        history; of one with history it has not.
        """

    @abc.abstractmethod
    async def group_discard(self, group: str, channel: str) -> None:
        """End a membership; does nothing where there is none.

        Args and Raises: as :meth:`group_add`.

        Cancellation: atomic.
        """

    @abc.abstractmethod
    async def group_send(self, group: str, message: Message, *, exclude: str | Iterable[str] = ()) -> str | None:
        """Send a message to every member of a group. A member whose mailbox is full does not make the call fail.

        In a group with history it arrives with the key ``history``: ``{"group": "room", "position": "..."}``.

        Args:
            group: the group's name. It may have no members.
            message: a dict whose ``type`` names the handler.
            exclude: the channel names of members that do not get it, such as the sender's; one name or several.

        Returns:
            The position of the message; None if the group has no history.

        Raises:
            InvalidNameError: the group name breaks the rules.
            MessageNotEncodable: the message holds a value that cannot be encoded, or the key ``history`` although the
                group has history.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: in memory atomic, all members or none. With a backend, a message that is on its way may arrive.
        """

    async def group_send_once(
        self, group: str, message: Message, identity: bytes, *, exclude: str | Iterable[str] = ()
    ) -> None:
        """As :meth:`group_send`, for a message that may be sent again: no member gets two of one `identity`.

        The identity is bytes that no other message has, such as a random UUID. Each receiving process remembers the
        latest 65,536. A history keeps the message once. A layer that does not override this method sends every time.

        Args, Raises and Cancellation: as :meth:`group_send`.
        """
        await self.group_send(group, message, exclude=exclude)

    async def group_broadcast(
        self,
        group: str,
        *,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002  # as in ASGI's websocket.send
        json: Any = NOT_GIVEN,
        exclude: str | Iterable[str] = (),
    ) -> str | None:
        """Send one WebSocket message to the clients of every consumer in a group, without a handler.

        The server builds the frame once per process and writes it to each client that nothing else waits for; that
        is several times as fast as handlers that send. Where something waits or is being handled, the message takes
        its place in the mailbox, like any other. So a client sees all messages in the order in which they were sent.

        A consumer with a method ``group_broadcast(self, event)`` gets the event, with ``text`` or ``bytes``, and sends
        by itself. ``subscribe()`` yields it. A WebSocket that is not accepted yet does not get it.

        Args:
            group: the group's name. It may have no members.
            text: the content of a text message.
            bytes: the content of a binary message.
            json: any value that :func:`json.dumps` takes, for a text message.
            exclude: the channel names of members that do not get it, such as the sender's; one name or several.

        Returns:
            As :meth:`group_send`. The clients do not learn the position, but the method ``group_broadcast`` does.

        Raises:
            MessageNotEncodable: not exactly one of text, bytes and json was given, or it cannot be encoded.
            InvalidNameError, ChannelLayerUnavailable: as :meth:`group_send`.

        Cancellation: as :meth:`group_send`.
        """
        return await self.group_send(group, broadcast_message(text, bytes, json), exclude=exclude)

    async def history(self, group: str, *, since: str | None = None, limit: int | None = None) -> History:
        """Read the messages that a group has kept, without joining it.

        Args:
            group: the group's name.
            since: return the messages behind this position; none if it is not recovered.
            limit: most messages: the first ones behind `since`; without it the newest ones. None: all that are kept.

        Raises:
            InvalidChannelLayerError: the layer has no history, or the limit is not an int above 0.
            InvalidNameError, ChannelLayerUnavailable: as :meth:`group_send`.

        Cancellation: nothing is changed.
        """
        raise no_history(self)

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
            ring: called in the mailbox' Trio run after an item was put in; it must not block. Not called for messages
                handed directly to a waiting ``get``.
            offer: called in the mailbox' Trio run with a message that arrives while the mailbox is empty. Returns True
                if the owner has taken the message; otherwise the message is put in.
            overflow: the overflow rule; the layer's by default.
            prefix: the first part of the channel name.
        """

    @abc.abstractmethod
    def subscribe(
        self,
        *groups: str,
        overflow: Overflow | None = None,
        since: str | Mapping[str, str | None] | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Receive groups' messages: ``async with layer.subscribe("room") as events: async for event in events``.

        The iteration yields the groups' messages, and a :class:`Gap` where some are missing. The membership ends with
        the block. ``events.recovery["room"]`` is the result of joining; see :meth:`group_add`.

        Args:
            groups: the groups to join.
            overflow: the overflow rule; the layer's by default.
            since: the position of the last message seen; of several groups, a dict of group and position.

        Raises:
            InvalidChannelLayerError: `since` does not fit the groups.
            MailboxOverflow: from the iteration, with ``overflow="close"``, when the subscriber fell behind.

        Cancellation: a cancelled iteration loses no message.
        """

    def mailboxes_here(self, *, channel: str = "", group: str = "") -> list[Mailbox]:
        """The mailboxes in this Trio run with that name, or that are members of that group; by default none."""
        return []

    def groups_here(self) -> dict[str, int]:
        """The groups with members in this Trio run, and the numbers of these; by default none."""
        return {}

    def work_queue(self, channel: str) -> WorkQueue:
        """A named channel as the queue of a :class:`trio_channels.worker.Worker`.

        Raises:
            InvalidChannelLayerError: the layer has no named channels for workers.
            InvalidNameError: the channel name breaks the rules, or names a process-local channel.
        """
        raise InvalidChannelLayerError(
            f"{type(self).__name__} has no named channels for workers: it has no method work_queue(). Use "
            f"trio_channels.layers.redis.RedisStreamsChannelLayer"
        )

    @abc.abstractmethod
    async def flush(self) -> None:
        """Delete every message and group membership. Each owner of a mailbox that loses messages gets a :class:`Gap`.

        Cancellation: seen before the deletion begins; then it is completed.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release the layer's resources in this Trio run. Idempotent.

        Cancellation: data left in a backend expires by itself.
        """

    @abc.abstractmethod
    def statistics(self) -> LayerStatistics:
        """An immutable snapshot."""


def _to_capacity(name: str, value: Any) -> int:
    require(COUNT, name, value)
    return int(value)

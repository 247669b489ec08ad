"""The methods of a channel layer for presence. A layer that does not override them has no presence, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from ...exceptions import InvalidChannelLayerError
from .state import Meta, PresenceState


class Tracked(Protocol):
    """A key that is tracked for the length of a block."""

    async def update(self, meta: Meta | None) -> None:
        """Give the key another meta. Raises: as :meth:`PresenceMethods.track`. Cancellation: the meta stands."""


class PresenceEvents(Protocol):
    """The changes of a group, as an async iterator of ``presence.diff`` events."""

    @property
    def state(self) -> PresenceState:
        """The state after the event that the iteration has yielded last."""

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...

    async def __anext__(self) -> dict[str, Any]: ...


class PresenceMethods:
    """Presence: which keys are in a group, in all processes.

    A group's presence has nothing to do with its members: a connection may track a key without being a member, and
    the other way round.
    """

    def track(self, group: str, key: str, meta: Meta | None = None) -> AbstractAsyncContextManager[Tracked]:
        """Track a key in a group for the length of a block: ``async with layer.track("room", "ann"): ...``.

        Args:
            group: the group's name.
            key: a non-empty text, such as the id of a user. Several blocks and connections may track the same key.
            meta: a dict about it, without the entry ``ref``.

        Raises:
            InvalidNameError: the group name breaks the rules.
            MessageNotEncodable: the key or the meta cannot be encoded, or the meta has the entry ``ref``.
            MessageTooLarge: they have more bytes than the option ``meta_size`` allows.
            ChannelLayerUnavailable: the backend did not confirm it in time.
            InvalidChannelLayerError: the layer has no presence.

        Cancellation: the tracking ends. At the end of the block the leave is held back for the layer's ``grace``.
        """
        self._no_presence("track")

    async def track_channel(self, group: str, channel: str, key: str, meta: Meta | None = None) -> None:
        """Track a key in a group for a connection; it ends with the connection. Does nothing for one that has ended.

        With the same meta again, nothing changes; with another one, the tracking gets the new meta.

        Args:
            group, key, meta: as :meth:`track`.
            channel: the ``channel_name`` of a connection in this process.

        Raises:
            TooManyTrackedKeys: the connection tracks as many keys as the option ``keys`` allows.
            InvalidNameError, MessageNotEncodable, MessageTooLarge, InvalidChannelLayerError: as :meth:`track`.
            ChannelLayerUnavailable: the backend did not confirm it in time. The tracking stands, and others are told
                later.

        Cancellation: the tracking stands.
        """
        self._no_presence("track_channel")

    async def untrack_channel(self, group: str, channel: str, key: str) -> None:
        """End a tracking of a connection, at once; does nothing where there is none.

        Raises:
            InvalidNameError, InvalidChannelLayerError: as :meth:`track`.

        Cancellation: atomic.
        """
        self._no_presence("untrack_channel")

    async def presence(self, group: str) -> PresenceState:
        """The keys that are in a group now: a dict of key and metas, one meta for each tracking.

        To follow the changes too, use :meth:`subscribe_presence` or :meth:`watch_presence`.

        Raises:
            InvalidNameError, InvalidChannelLayerError: as :meth:`track`.
            ChannelLayerUnavailable: the backend did not answer in time.

        Cancellation: nothing changes.
        """
        self._no_presence("presence")

    async def watch_presence(self, group: str, channel: str) -> PresenceState:
        """Send a connection the changes of a group's presence, and return the state that they follow.

        The connection gets ``presence.diff`` events until it ends, or until :meth:`unwatch_presence`. An event has the
        ``group``; ``joins`` and ``leaves``, each a dict of key and metas; ``arrived`` and ``departed``, the keys that
        were not there before and the keys that are no longer there; and a ``version``. The state with the events
        applied (:meth:`PresenceState.apply`) is always the state of the group. Call it again after a gap.

        Args:
            group: the group's name.
            channel: the ``channel_name`` of a connection in this process.

        Raises:
            InvalidNameError, InvalidChannelLayerError: as :meth:`track`.
            ChannelLayerUnavailable: the backend did not answer in time. The connection gets no events.

        Cancellation: the connection gets no events.
        """
        self._no_presence("watch_presence")

    async def unwatch_presence(self, group: str, channel: str) -> None:
        """Send a connection no further changes of a group's presence.

        Raises:
            InvalidNameError, InvalidChannelLayerError: as :meth:`track`.

        Cancellation: atomic.
        """
        self._no_presence("unwatch_presence")

    def subscribe_presence(self, group: str) -> AbstractAsyncContextManager[PresenceEvents]:
        """Follow a group's presence, for the length of a block: ``async for diff in events``.

        ``events.state`` is the state after the event yielded last, and at first the state when the block began. A
        subscriber that falls behind misses nothing: it gets the changes as one event.

        Raises:
            InvalidNameError, ChannelLayerUnavailable, InvalidChannelLayerError: as :meth:`watch_presence`.

        Cancellation: a cancelled iteration loses no change.
        """
        self._no_presence("subscribe_presence")

    def _no_presence(self, method: str) -> NoReturn:
        raise InvalidChannelLayerError(
            f"{type(self).__name__} has no presence: it has no method {method}(). Use "
            f"trio_channels.layers.redis.RedisStreamsChannelLayer or trio_channels.layers.InMemoryChannelLayer"
        )

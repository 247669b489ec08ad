"""A topic's place in the channel layer: its group, with the history and the presence of that."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ..exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from ..layers.base import ChannelLayer
from ..layers.history import Recovery
from ..layers.presence import PresenceState
from .broadcasting import group_of
from .resuming import since_of


class TopicGroup:
    """One client's membership in the group of a topic; without a channel layer it is none.

    Attributes:
        recovery: the result of joining a group with history; None without it.
    """

    __slots__ = ("_channel", "_keys", "_layer", "_missed", "_watches", "name", "recovery")

    def __init__(self, layer: ChannelLayer | None, topic: str, channel: str) -> None:
        self._layer = layer
        self.name = group_of(topic)
        self._channel = channel
        self._missed = 0.0
        self._keys: set[str] = set()  # that the topic tracks
        self._watches = False
        self.recovery: Recovery | None = None

    @property
    def room(self) -> float:
        """The broadcasts that may wait for the topic: as many as for a consumer, and those that it has missed."""
        return self._missed if self._layer is None else self._layer.get_capacity(self._channel) + self._missed

    async def join(self, params: msgspec.Raw | bytes) -> None:
        """Join the group, from the position in the parameters on. Cancellation: as the layer's ``group_add``."""
        if self._layer is None:
            return
        if not self._layer.has_history(self.name):
            await self._layer.group_add(self.name, self._channel)
            return
        self._missed = math.inf  # what was missed may come before its number is known
        self.recovery = await self._layer.group_add(self.name, self._channel, since=since_of(params))
        self._missed = self.recovery.missed

    async def leave(self) -> None:
        """Leave the group; end what the topic tracks and watches. Cancellation: as the layer's ``group_discard``."""
        if self._layer is None:
            return
        try:
            for key in self._keys:
                await self._layer.untrack_channel(self.name, self._channel, key)
            if self._watches:
                await self._layer.unwatch_presence(self.name, self._channel)
            await self._layer.group_discard(self.name, self._channel)
        except ChannelLayerUnavailable:
            pass  # all of it ends with the socket, which drops the topic's broadcasts until then

    async def track(self, key: str, meta: dict[str, Any] | None) -> None:
        """See :meth:`Topic.track`."""
        layer = self._required()
        self._keys.add(key)
        await layer.track_channel(self.name, self._channel, key, meta)

    async def untrack(self, key: str) -> None:
        """See :meth:`Topic.untrack`."""
        await self._required().untrack_channel(self.name, self._channel, key)
        self._keys.discard(key)

    async def watch(self) -> PresenceState:
        """Have the socket get the changes of the presence. Cancellation: as the layer's ``watch_presence``."""
        layer = self._required()
        self._watches = True
        return await layer.watch_presence(self.name, self._channel)

    async def presence(self) -> PresenceState:
        """See :meth:`Topic.presence`."""
        return await self._required().presence(self.name)

    def _required(self) -> ChannelLayer:
        if self._layer is None:
            raise InvalidChannelLayerError("presence needs a channel layer, but the socket has none")
        return self._layer

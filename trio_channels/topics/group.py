"""A topic's place in the channel layer: its group, and the history of that."""

from __future__ import annotations

import math

import msgspec

from ..exceptions import ChannelLayerUnavailable
from ..layers.base import ChannelLayer
from ..layers.history import Recovery
from .broadcasting import group_of
from .resuming import since_of


class TopicGroup:
    """One client's membership in the group of a topic; without a channel layer it is none.

    Attributes:
        recovery: the result of joining a group with history; None without it.
    """

    __slots__ = ("_channel", "_group", "_layer", "_missed", "recovery")

    def __init__(self, layer: ChannelLayer | None, topic: str, channel: str) -> None:
        self._layer = layer
        self._group = group_of(topic)
        self._channel = channel
        self._missed = 0.0
        self.recovery: Recovery | None = None

    @property
    def room(self) -> float:
        """The broadcasts that may wait for the topic: as many as for a consumer, and those that it has missed."""
        return self._missed if self._layer is None else self._layer.get_capacity(self._channel) + self._missed

    async def join(self, params: msgspec.Raw | bytes) -> None:
        """Join the group, from the position in the parameters on. Cancellation: as the layer's ``group_add``."""
        if self._layer is None:
            return
        if not self._layer.has_history(self._group):
            await self._layer.group_add(self._group, self._channel)
            return
        self._missed = math.inf  # what was missed may come before its number is known
        self.recovery = await self._layer.group_add(self._group, self._channel, since=since_of(params))
        self._missed = self.recovery.missed

    async def leave(self) -> None:
        """Leave the group. Cancellation: as the layer's ``group_discard``."""
        if self._layer is not None:
            try:
                await self._layer.group_discard(self._group, self._channel)
            except ChannelLayerUnavailable:
                pass  # the membership ends with the socket, which drops the topic's broadcasts until then

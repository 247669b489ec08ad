"""Joining of groups by consumers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..exceptions import InvalidChannelLayerError
from ..layers.base import Recovery
from ..layers.history import no_history
from ..sync import async_to_sync


class Member(Protocol):
    """What a consumer has of a channel layer."""

    channel_layer_alias: str
    channel_layer: Any
    channel_name: str


class AsyncGroups:
    """``group_add`` of an asynchronous consumer."""

    async def group_add(self: Member, group: str, *, since: str | None = None) -> Recovery:
        """Join a group. With a position, the handlers get the missed messages first, and then the live ones.

        If the position is not recovered, ``channel_layer_gap`` is called first, with the reason ``not recovered``.

        Args:
            group: the group's name.
            since: the position of the last message that the client has seen, as the client gave it.

        Returns:
            Whether it was recovered, and the position where the membership begins.

        Raises and cancellation: as :meth:`ChannelLayer.group_add`.
        """
        return await group_add_of(self, since)(group, self.channel_name)


class SyncGroups:
    """``group_add`` of a synchronous consumer."""

    def group_add(self: Member, group: str, *, since: str | None = None) -> Recovery:
        """Join a group; see :meth:`AsyncConsumer.group_add`. Call it on a thread of the consumer."""
        return async_to_sync(group_add_of(self, since))(group, self.channel_name)


def group_add_of(consumer: Member, since: str | None) -> Callable[[str, str], Awaitable[Recovery]]:
    """The method ``group_add`` of the consumer's layer, with the argument `since` if it is given.

    Raises:
        InvalidChannelLayerError: there is no layer, or it has no history.
    """
    layer = consumer.channel_layer
    if layer is None:
        raise InvalidChannelLayerError(
            f"{type(consumer).__name__}.group_add() needs a channel layer, but CHANNEL_LAYERS has no entry "
            f"{consumer.channel_layer_alias!r}"
        )
    join: Callable[..., Awaitable[Recovery]] = layer.group_add
    if since is None:
        return join  # a layer without history need not know the argument
    if "history" not in layer.extensions:
        raise no_history(layer)
    return functools.partial(join, since=since)

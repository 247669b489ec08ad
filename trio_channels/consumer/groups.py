"""Joining of groups by consumers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..exceptions import InvalidChannelLayerError
from ..layers.base import Recovery
from ..layers.history import no_history


class Member(Protocol):
    """What a consumer has of a channel layer."""

    channel_layer_alias: str
    channel_layer: Any


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

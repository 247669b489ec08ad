"""Where a stream begins that goes with a page: at the position of before the page read the state."""

from __future__ import annotations

from ..exceptions import InvalidChannelLayerError
from ..layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layers.base import ChannelLayer
from .names import checked, group_for
from .positions import Positions


async def stream_position(*names: str, layer: ChannelLayer | None = None) -> str | None:
    """The newest position of groups and topics, for ``since``. Ask for it before you read the state that a page shows.

    Args:
        names: the groups and topics of the stream.
        layer: the channel layer; that of the alias ``default`` by default.

    Returns:
        The position; None if no group has a history.

    Raises:
        ConfigurationError: there are no names, or too many.
        InvalidChannelLayerError: there is no channel layer.
        InvalidNameError, ChannelLayerUnavailable: as ``history`` of the layer.

    Cancellation: nothing is changed.
    """
    chosen = get_channel_layer(DEFAULT_CHANNEL_LAYER) if layer is None else layer
    if chosen is None:
        raise InvalidChannelLayerError(
            f"an event stream needs a channel layer, but CHANNEL_LAYERS has no entry {DEFAULT_CHANNEL_LAYER!r}"
        )
    groups = dict.fromkeys(map(group_for, checked(names)))
    positions = Positions(groups, None)
    for group in groups:
        if chosen.has_history(group):
            positions.move(group, (await chosen.history(group, limit=1)).position)
    return positions.event_id

"""Refuses a channel layer that Channels makes."""

from __future__ import annotations

import sys
from types import FrameType

from ..exceptions import InvalidChannelLayerError


def refuse_channels() -> None:
    """Raise InvalidChannelLayerError if Channels is making the layer: it would be a second one, which nobody hears."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name == "__init__":
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__") == "channels.layers":
        raise InvalidChannelLayerError(
            "channels.layers makes layers of its own, which no consumer of trio-channels hears: import "
            "get_channel_layer from trio_channels.layers, not from channels.layers"
        )

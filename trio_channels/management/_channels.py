"""What the commands about named channels share."""

from __future__ import annotations

import argparse

from django.core.management.base import CommandError

from ..exceptions import TrioChannelsError
from ..layers import DEFAULT_CHANNEL_LAYER, InMemoryChannelLayer, channel_layers
from ..layers.base import ChannelLayer


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """The option ``--layer``."""
    parser.add_argument(
        "--layer",
        default=DEFAULT_CHANNEL_LAYER,
        metavar="ALIAS",
        help=f"which entry of CHANNEL_LAYERS to use; {DEFAULT_CHANNEL_LAYER!r} if not given",
    )


def shared_layer(alias: str) -> ChannelLayer:
    """The layer of that alias.

    Raises:
        CommandError: there is none, or it is of this process alone.
    """
    try:
        layer = channel_layers[alias]
    except TrioChannelsError as error:
        raise CommandError(str(error)) from error
    if isinstance(layer, InMemoryChannelLayer):
        raise CommandError(
            f"CHANNEL_LAYERS[{alias!r}] is an in-memory layer, which passes nothing between processes: no message of a "
            f"server would ever come here. Use trio_channels.layers.redis.RedisStreamsChannelLayer, or run a "
            f"trio_channels.worker.Worker inside the server"
        )
    return layer

"""The parts that the commands for named channels share."""

from __future__ import annotations

import argparse

from django.core.management.base import CommandError

from ..exceptions import TrioChannelsError
from ..layers import DEFAULT_CHANNEL_LAYER, InMemoryChannelLayer, channel_layers
from ..layers.base import ChannelLayer
from ..server.lifespan import CANNOT_START


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--layer``."""
    parser.add_argument(
        "--layer",
        default=DEFAULT_CHANNEL_LAYER,
        metavar="ALIAS",
        help=f"the alias of the channel layer in CHANNEL_LAYERS ({DEFAULT_CHANNEL_LAYER!r})",
    )


def shared_layer(alias: str) -> ChannelLayer:
    """The channel layer of an alias. Raises CommandError for a missing layer, and for one in memory."""
    try:
        layer = channel_layers[alias]
    except TrioChannelsError as error:
        raise CommandError(str(error), returncode=CANNOT_START) from error
    if isinstance(layer, InMemoryChannelLayer):
        raise CommandError(
            f"expected a channel layer that connects processes; CHANNEL_LAYERS[{alias!r}] is an in-memory layer, which "
            f"gets no messages from other processes. Use trio_channels.layers.redis.RedisStreamsChannelLayer, or run a "
            f"trio_channels.worker.Worker inside the server",
            returncode=CANNOT_START,
        )
    return layer

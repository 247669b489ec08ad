"""New channel layers for one test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..layers import DEFAULT_CHANNEL_LAYER, InMemoryChannelLayer, channel_layers, history_of
from ..layers.base import ChannelLayer


@contextmanager
def fresh_channel_layers() -> Iterator[ChannelLayer]:
    """In the block, each alias of ``CHANNEL_LAYERS`` has a new, empty layer; afterwards the former layers are back.

    An entry with a ``TEST_CONFIG`` gives a layer of its ``BACKEND`` with that configuration. Every other entry, a Redis
    one too, gives an :class:`~trio_channels.layers.InMemoryChannelLayer`. Without the setting there is one for
    ``default``. The groups that have a ``history`` by the entry's ``CONFIG`` have it in the new layer, too.

    Returns:
        The layer ``default``; without an entry of that name, the layer of the first.

    Raises:
        InvalidChannelLayerError: no layer can be made from a ``TEST_CONFIG`` or a ``history``.
    """
    configs = channel_layers.configs or {DEFAULT_CHANNEL_LAYER: {}}
    fresh = {
        alias: channel_layers.make_test_backend(alias)
        if "TEST_CONFIG" in entry
        else InMemoryChannelLayer(**history_of(entry))
        for alias, entry in configs.items()
    }
    before = channel_layers.backends
    channel_layers.backends = dict(fresh)
    try:
        yield fresh.get(DEFAULT_CHANNEL_LAYER) or next(iter(fresh.values()))
    finally:
        channel_layers.backends = before

"""Channels' own ``get_channel_layer`` says which one to import."""

from __future__ import annotations

import types
from typing import Any

import pytest

from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.layers import InMemoryChannelLayer, get_channel_layer
from trio_channels.layers.redis import RedisStreamsChannelLayer

#: As Channels does it, with the class that the setting names.
SOURCE = """
def get_channel_layer(backend, **config):
    return make_backend(backend, config)

def make_backend(backend, config):
    return backend(**config)
"""


def module_named(name: str) -> Any:
    module = types.ModuleType(name)
    exec(SOURCE, vars(module))
    return module


class Derived(InMemoryChannelLayer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


@pytest.mark.parametrize("backend", [InMemoryChannelLayer, RedisStreamsChannelLayer, Derived])
def test_layer_that_channels_makes_is_refused(backend: type) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"from trio_channels\.layers, not from channels\.layers"):
        module_named("channels.layers").get_channel_layer(backend)


def test_layer_that_others_make_is_made() -> None:
    assert isinstance(module_named("mysite.layers").get_channel_layer(Derived, capacity=5), Derived)
    assert get_channel_layer() is get_channel_layer()

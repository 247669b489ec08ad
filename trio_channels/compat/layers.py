"""Channel layers that asyncio code can call too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .. import layers as trio_layers
from ..layers import DEFAULT_CHANNEL_LAYER, ChannelLayerManager
from ..layers.base import ChannelLayer
from ..layers.memory import InMemoryChannelLayer as TrioInMemoryChannelLayer
from .crossing import two_flavoured, with_both_flavours

#: The in-memory layer; see :class:`trio_channels.layers.InMemoryChannelLayer`.
InMemoryChannelLayer = with_both_flavours(TrioInMemoryChannelLayer)


class BaseChannelLayer(ChannelLayer):
    """Channels' base class of layers: its own objects check names, and do nothing else.

    :func:`isinstance` takes every layer of :mod:`trio_channels` for one. A subclass needs all methods of a layer here.
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Any:
        """An object, which has all methods if it is none of a subclass."""
        return super().__new__(_NamesOnly if cls is BaseChannelLayer else cls)

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        # Not by issubclass(), which would ask here again: it asks all subclasses.
        return (cls is BaseChannelLayer and ChannelLayer in other.__mro__) or NotImplemented


def _missing(name: str) -> Callable[..., Any]:
    def call(*_args: Any, **_options: Any) -> Any:
        raise NotImplementedError(f"BaseChannelLayer has no {name}(): expected a layer that is derived from it")

    return call


_NamesOnly: Any = type(
    BaseChannelLayer.__name__,
    (BaseChannelLayer,),
    {"__module__": __name__, **{name: _missing(name) for name in ChannelLayer.__abstractmethods__}},
)

#: The attribute of a layer that holds its variant: a table of all variants would keep every layer alive.
_VARIANT = "_trio_channels_for_asyncio"


class LayerForAsyncio:
    """A layer whose async methods asyncio code can call. Everything else is the layer's."""

    def __init__(self, layer: ChannelLayer) -> None:
        self._layer = layer

    def __repr__(self) -> str:
        return f"<{self._layer!r}, for asyncio>"

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._layer, name)
        if not name.startswith("_") and inspect.iscoroutinefunction(value):
            value = two_flavoured(value)
            setattr(self, name, value)
        return value

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._layer)  # isinstance() sees the layer


def for_asyncio(layer: Any) -> Any:
    """The layer for asyncio code; one that is already, or None, as it is."""
    if layer is None or type(layer) is LayerForAsyncio:
        return layer
    found = vars(layer).get(_VARIANT)
    if found is None:
        found = LayerForAsyncio(layer)
        setattr(layer, _VARIANT, found)
    return found


class _Manager:
    """The manager of the layers; see :class:`trio_channels.layers.ChannelLayerManager`."""

    def __init__(self, manager: ChannelLayerManager) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def __getitem__(self, key: str) -> Any:
        return for_asyncio(self._manager[key])

    def __contains__(self, key: str) -> bool:
        return key in self._manager

    def make_backend(self, name: str) -> Any:
        return for_asyncio(self._manager.make_backend(name))

    def make_test_backend(self, name: str) -> Any:
        return for_asyncio(self._manager.make_test_backend(name))

    def set(self, key: str, layer: Any) -> Any:
        real = layer._layer if type(layer) is LayerForAsyncio else layer
        return for_asyncio(self._manager.set(key, real))


channel_layers = _Manager(trio_layers.channel_layers)


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """See :func:`trio_channels.layers.get_channel_layer`."""
    return for_asyncio(trio_layers.get_channel_layer(alias))

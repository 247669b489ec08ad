"""Channel layers: the manager for ``CHANNEL_LAYERS``, the base class, and the in-memory layer.

``CHANNEL_LAYERS`` has the form that Channels users know::

    CHANNEL_LAYERS = {"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 100}}}
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .. import _conf
from .._concurrency.system import after_fork
from .._limits import DEFAULT_CHANNEL_LAYER, suggestion
from ..exceptions import InvalidChannelLayerError
from .base import ChannelLayer, Gap, LayerStatistics, Overflow
from .memory import InMemoryChannelLayer
from .presence import PresenceState

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelLayerManager",
    "Gap",
    "InMemoryChannelLayer",
    "LayerStatistics",
    "Overflow",
    "PresenceState",
    "channel_layers",
    "get_channel_layer",
]

#: The paths of the layers of this package.
BACKENDS = (
    "trio_channels.layers.InMemoryChannelLayer",
    "trio_channels.layers.redis.RedisStreamsChannelLayer",
)

_KEYS = ("BACKEND", "CONFIG", "TEST_CONFIG", "ROUTING")

#: The name that Channels users know.
BaseChannelLayer = ChannelLayer


class ChannelLayerManager:
    """Makes each configured channel layer on its first use, and keeps it."""

    def __init__(self) -> None:
        self.backends: dict[str, ChannelLayer] = {}
        self._not_configured = False  # whether the settings are known to have no CHANNEL_LAYERS
        # Several threads may ask for a layer: members of one object would not hear the senders of a second one.
        # Re-entrant, since a layer may be made of other configured layers.
        self._lock = threading.RLock()
        after_fork(self._after_fork)
        setting_changed.connect(self._reset)

    def __repr__(self) -> str:
        return f"<ChannelLayerManager {self.backends!r}>"

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # a thread of the parent, which the child does not have, may have held it

    def _reset(self, *, setting: str, **_kwargs: object) -> None:
        if setting in ("CHANNEL_LAYERS", _conf.NAME):
            self.backends = {}
            self._not_configured = False

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """``settings.CHANNEL_LAYERS``; empty without that setting or without settings."""
        # Every connection asks, and a missing setting is slow to look up, so that its absence is cached. A setting that
        # exists is read anew each time: it may be changed without the signal.
        if self._not_configured or not _conf.available():
            return {}
        if not hasattr(settings, "CHANNEL_LAYERS"):
            self._not_configured = True
            return {}
        configs = settings.CHANNEL_LAYERS
        if not isinstance(configs, Mapping) or not all(isinstance(entry, Mapping) for entry in configs.values()):
            # Without the value: it may hold passwords and keys.
            raise InvalidChannelLayerError("the setting CHANNEL_LAYERS must be a dict of dicts, one for each alias")
        return dict(configs)

    def make_backend(self, name: str) -> ChannelLayer:
        """A new layer from an entry's ``CONFIG``.

        Raises:
            InvalidChannelLayerError: there is no such entry, or no layer can be made from it.
        """
        return self._make(name, "CONFIG")

    def make_test_backend(self, name: str) -> ChannelLayer:
        """A new layer from an entry's ``TEST_CONFIG``, with the ``history`` of its ``CONFIG`` unless it has one itself.

        Raises:
            InvalidChannelLayerError: the entry has no ``TEST_CONFIG``, or no layer can be made from it.
        """
        if "TEST_CONFIG" not in self._entry(name):
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}] has no TEST_CONFIG; a test layer needs one")
        return self._make(name, "TEST_CONFIG")

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self.configs.get(name)
        if entry is None:
            known = ", ".join(map(repr, self.configs)) or "none"
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS has no entry {name!r}; configured: {known}")
        return entry

    def _make(self, name: str, config_key: str) -> ChannelLayer:
        entry = self._entry(name)
        for key in entry:
            if key not in _KEYS:
                raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}] has no key {key!r}{suggestion(key, _KEYS)}")
        if "ROUTING" in entry:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] has the key ROUTING of Channels 1; remove it, and set ASGI_APPLICATION"
            )
        path = entry.get("BACKEND")
        if not isinstance(path, str):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] needs a BACKEND such as 'trio_channels.layers.InMemoryChannelLayer'; "
                f"got {path!r}"
            )
        try:
            backend = import_string(path)
        except ImportError as error:
            hint = (
                "; install it: pip install 'trio-channels[redis]'" if path in BACKENDS else suggestion(path, BACKENDS)
            )
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}]: cannot import {path!r}: {error}{hint}"
            ) from error
        if isinstance(backend, type) and not issubclass(backend, ChannelLayer):
            raise _foreign(name, path)
        config = entry.get(config_key, {})
        if not isinstance(config, Mapping):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}][{config_key!r}] must be a dict; got {type(config).__name__}"
            )
        _check_options(f"CHANNEL_LAYERS[{name!r}][{config_key!r}]", backend, config)
        options = {"capacity": _conf.get("MAILBOX_CAPACITY"), "overflow": _conf.get("MAILBOX_OVERFLOW")}
        try:
            layer = backend(**{**options, **history_of(entry), **config})
        except TypeError as error:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}][{config_key!r}]: {error}") from error
        if not isinstance(layer, ChannelLayer):
            raise _foreign(name, path)
        return layer

    def __getitem__(self, key: str) -> ChannelLayer:
        with self._lock:
            layer = self.backends.get(key)
            if layer is None:
                layer = self.backends[key] = self.make_backend(key)
            return layer

    def __contains__(self, key: str) -> bool:
        return key in self.backends or key in self.configs

    def set(self, key: str, layer: ChannelLayer | None) -> ChannelLayer | None:
        """Replace a layer, for tests; returns the previous one.

        Args:
            key: the alias.
            layer: the new layer; None to have the next use make one from the settings.
        """
        old = self.backends.pop(key, None)
        if layer is not None:
            self.backends[key] = layer
        return old


def history_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The option ``history`` of an entry, for its layers in tests, too: handlers rely on the positions of messages."""
    config = entry.get("CONFIG")
    return {"history": config["history"]} if isinstance(config, Mapping) and "history" in config else {}


def _check_options(where: str, backend: object, config: Mapping[str, object]) -> None:
    """Refuse options that a layer of this package does not have. A factory or a class of others checks its own."""
    initialisers = [base for base in getattr(backend, "__mro__", ())[:-1] if "__init__" in vars(base)]
    if not initialisers or not all(base.__module__.startswith(__name__) for base in initialisers):
        return
    parameters = [it for base in initialisers for it in inspect.signature(vars(base)["__init__"]).parameters.values()]
    known = tuple(it.name for it in parameters if it.kind is it.KEYWORD_ONLY)
    for key in config:
        if key not in known:
            raise InvalidChannelLayerError(f"{where} has no key {key!r}{suggestion(key, known)}")


def _foreign(name: str, path: str) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(
        f"CHANNEL_LAYERS[{name!r}]: {path} is not a trio_channels.layers.BaseChannelLayer; "
        f"layers for asyncio (channels_redis, channels.layers) do not run on Trio. Use "
        f"trio_channels.layers.redis.RedisStreamsChannelLayer, or trio_channels.layers.InMemoryChannelLayer"
    )


#: The layers of ``CHANNEL_LAYERS`` by alias, such as ``channel_layers["default"]``; each is made on first use.
channel_layers = ChannelLayerManager()


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> ChannelLayer | Any:
    """The channel layer of that alias, or None if ``CHANNEL_LAYERS`` has no such entry.

    The type leaves None out: a type checker would ask each project with a layer for a check.

    Raises:
        InvalidChannelLayerError: no layer can be made from the entry.
    """
    return channel_layers[alias] if alias in channel_layers else None  # noqa: SIM401 - it is no dict

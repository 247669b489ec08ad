"""The modules ``channels...`` and ``channels_redis...``: found by name, filled from the table of names.

Each is a module of its own, so that a name can stand for another object than in ``trio_channels``: ``REPLACED`` has
these. All others are the very objects of ``trio_channels``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import names

#: The version of Channels and of channels_redis whose names these are.
VERSION = "4.3.2"

#: Names for which there is a variant that asyncio code can use: in this package, by the module of Channels.
REPLACED = {
    "channels.auth": ("auth", ("get_user", "login", "logout")),
    "channels.consumer": ("consumers", ("AsyncConsumer",)),
    "channels.db": ("threads", ("aclose_old_connections", "database_sync_to_async")),
    "channels.generic.http": ("consumers", ("AsyncHttpConsumer",)),
    "channels.generic.websocket": ("consumers", ("AsyncJsonWebsocketConsumer", "AsyncWebsocketConsumer")),
    "channels.layers": (
        "layers",
        ("BaseChannelLayer", "InMemoryChannelLayer", "channel_layers", "get_channel_layer"),
    ),
    "channels.testing": ("testing", ("ApplicationCommunicator", "HttpCommunicator", "WebsocketCommunicator")),
    "channels.testing.application": ("testing", ("ApplicationCommunicator",)),
    "channels.testing.http": ("testing", ("HttpCommunicator",)),
    "channels.testing.websocket": ("testing", ("WebsocketCommunicator",)),
    "channels_redis.core": ("redis", ("RedisChannelLayer",)),
    "channels_redis.pubsub": ("redis", ("RedisPubSubChannelLayer",)),
}

#: The packages; "channels.testing" has names of its own, too.
_PACKAGES = (
    *("channels", "channels.generic", "channels.management", "channels.management.commands", "channels.security"),
    *("channels.testing", "channels_redis"),
)


def find(module: str, name: str) -> Any:
    """The object that a name of a module stands for.

    Raises:
        ImportError: the name has no counterpart; the message says what replaces it.
        AttributeError: Channels has no such name either.
    """
    full = names.defined_at(f"{module}.{name}")
    module, _, name = full.rpartition(".")
    if module.startswith("asgiref."):
        return getattr(importlib.import_module(module), name)
    here, replaced = REPLACED.get(module, ("", ()))
    if name in replaced:
        return getattr(importlib.import_module(f"{__package__}.{here}"), name)
    if why := names.why_missing(full):
        raise ImportError(f"trio_channels.compat has no {full}. {why}")
    place, _, attribute = names.place_of(full).rpartition(".")
    try:
        return getattr(importlib.import_module(place), attribute)
    except ModuleNotFoundError:
        raise AttributeError(f"module {module!r} has no attribute {name!r}") from None


class _Finder(MetaPathFinder, Loader):
    """Finds the modules of Channels that the table has, and fills them."""

    def __repr__(self) -> str:
        return "<the modules of Channels as trio_channels>"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of Channels; None for any other module."""
        if fullname.partition(".")[0] not in ("channels", "channels_redis"):
            return None
        if fullname not in _PACKAGES and fullname not in names.defined():
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: trio_channels.compat has the public modules of Channels only",
                name=fullname,
            )
        spec = ModuleSpec(fullname, self, is_package=fullname in _PACKAGES)
        spec.origin = "trio_channels.compat"
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names, which are looked up when they are first used."""
        here = module.__name__
        module.__doc__ = f"Stands for ``{here}``: see :mod:`trio_channels.compat`."
        if "." not in here:
            module.__dict__["__version__"] = VERSION
        missing = {name for name in names.defined().get(here, {}) if names.why_missing(f"{here}.{name}")}
        module.__dict__["__all__"] = [name for name in names.defined().get(here, {}) if name not in missing]

        def look_up(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {here!r} has no attribute {name!r}")
            submodule = f"{here}.{name}"
            known = submodule in _PACKAGES or submodule in names.defined()
            found = importlib.import_module(submodule) if known else find(here, name)
            module.__dict__[name] = found
            return found

        module.__dict__["__getattr__"] = look_up
        module.__dict__["__dir__"] = lambda: sorted({*vars(module), *module.__dict__["__all__"]})


FINDER = _Finder()

"""The options of presence: a layer's ``presence``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from ..._limits import COUNT, Rule, suggestion
from ...exceptions import InvalidChannelLayerError


class PresenceOptions(TypedDict, total=False):
    """The option ``presence`` of a channel layer.

    Args:
        grace: seconds for which the leave of an ended connection is held back; 0 by default. If the key is tracked
            again meanwhile, as after the reload of a page, watchers get no event.
        meta_size: most bytes of a key and its meta, as MessagePack; 4,096 by default.
        keys: most keys that one connection tracks; 100 by default.
    """

    grace: float
    meta_size: int
    keys: int


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """The checked options; see :class:`PresenceOptions`."""

    grace: float = 0.0
    meta_size: int = 4_096
    keys: int = 100


_GIVEN = Rule("None or a dict, such as {'grace': 5}", lambda value: value is None or isinstance(value, Mapping))
#: Where nobody would believe in a longer one.
_GRACE = Rule(
    "a number of seconds from 0 to 3600",
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3_600,
)
_RULES = {"grace": _GRACE, "meta_size": COUNT, "keys": COUNT}


def presence_limits(given: Any) -> PresenceLimits:
    """Check the option. Raises InvalidChannelLayerError for an unknown key, and for a value out of range."""
    _GIVEN.require("presence of a channel layer", given, InvalidChannelLayerError)
    known = tuple(field.name for field in fields(PresenceLimits))
    for name, value in (given or {}).items():
        if name not in known:
            raise InvalidChannelLayerError(f"presence of a channel layer has no key {name!r}{suggestion(name, known)}")
        _RULES[name].require(f"presence[{name!r}] of a channel layer", value, InvalidChannelLayerError)
    return PresenceLimits(**(given or {}))

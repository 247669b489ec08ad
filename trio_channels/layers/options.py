"""The options of every channel layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypedDict

from .._limits import Overflow
from .history import HistoryOptions
from .presence.options import PresenceOptions

#: Channels' defaults, in seconds.
EXPIRY, GROUP_EXPIRY = 60.0, 86_400.0


class LayerOptions(TypedDict, total=False):
    """The options of every channel layer; see :class:`ChannelLayer`."""

    expiry: float
    group_expiry: float
    capacity: int
    channel_capacity: Mapping[str | re.Pattern[str], int] | None
    overflow: Overflow
    history: Mapping[str | re.Pattern[str], HistoryOptions] | None
    presence: PresenceOptions | None

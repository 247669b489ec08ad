"""Presence: which keys (people, devices, documents) are in a group now, in all processes.

A connection *tracks* a key in a group, with a meta of its own, and the tracking ends with the connection. A *view* is
the list of all trackings of a group, kept up to date where somebody watches it. The methods are those of
:class:`~trio_channels.layers.base.ChannelLayer` and of the consumers.

state    the keys and metas as you read them, and the events that change them
options  the limits and the grace
table    the trackings and views of one Trio run
view     one group's trackings, and the events for its watchers
alarm    calls functions at their times
interface, local  the methods of layers
"""

from __future__ import annotations

from .options import PresenceOptions
from .state import Meta, PresenceState

__all__ = ["Meta", "PresenceOptions", "PresenceState"]

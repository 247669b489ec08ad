"""An application for hypercorn's worker to load."""

from __future__ import annotations

from trio_channels.routing import ProtocolTypeRouter

application = ProtocolTypeRouter({})

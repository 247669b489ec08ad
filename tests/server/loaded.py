"""What hypercorn's worker is given to load."""

from __future__ import annotations

from trio_channels.routing import ProtocolTypeRouter

application = ProtocolTypeRouter({})

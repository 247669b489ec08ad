"""Channels' consumers, for uvicorn, granian, daphne and hypercorn; Django's own handlers, for uvicorn and gunicorn."""

from __future__ import annotations

import asyncio

from . import project

project.set_up("channels.layers.InMemoryChannelLayer")
project.make_views(asyncio.sleep)

from channels.routing import ProtocolTypeRouter  # noqa: E402  # all of these need settings
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from .consumers import application as websocket_application  # noqa: E402

http = get_asgi_application()
wsgi = get_wsgi_application()
application = ProtocolTypeRouter({"http": http, "websocket": websocket_application("channels")})

"""The ASGI application: ``trio-channels serve mysite.asgi:application``."""

import os

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.topics import LongPolling

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
# Before the import of models: this sets up Django.
django_application = get_asgi_application()

from chat.routing import websocket_urlpatterns  # noqa: E402
from django.urls import path, re_path  # noqa: E402

# From the outside in: check the page's origin, load the user, find the consumer.
websocket = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))

application = ProtocolTypeRouter(
    {
        # For networks that block WebSockets, the same over HTTP.
        "http": URLRouter([path("socket/longpoll", LongPolling(websocket)), re_path("", django_application)]),
        "websocket": websocket,
    }
)

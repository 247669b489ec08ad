"""The ASGI application: ``trio-channels serve mysite.asgi:application``."""

import os
from collections.abc import AsyncIterator

from trio_channels import outbox
from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
# Before the import of models: this sets up Django.
django_application = get_asgi_application()

from board.routing import websocket_urlpatterns  # noqa: E402


async def life() -> AsyncIterator[None]:
    """As long as the server runs, a relay sends the committed messages of the outbox."""
    async with outbox.relay():
        yield


application = ProtocolTypeRouter(
    {
        "http": django_application,
        # From the outside in: check the page's origin, load the user, find the socket.
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
        "lifespan": life,
    }
)

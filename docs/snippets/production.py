import os

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.health import health
from trio_channels.proxy_headers import ProxyHeadersMiddleware
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from django.urls import path, re_path  # noqa: E402

from echo import Echo  # noqa: E402

application = ProxyHeadersMiddleware(
    ProtocolTypeRouter(
        {
            "http": URLRouter([path("healthz", health), re_path("", django_application)]),
            "websocket": AllowedHostsOriginValidator(
                AuthMiddlewareStack(URLRouter([path("ws/echo/", Echo.as_asgi())]))
            ),
        }
    ),
    trusted=["unix"],
)

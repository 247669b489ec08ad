import os

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from django.urls import path, re_path  # noqa: E402

from members import Editors  # noqa: E402
from tokens import TokenMiddleware  # noqa: E402

consumers = URLRouter([path("ws/editors/", Editors.as_asgi())])

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": URLRouter(
            [
                path("app/", TokenMiddleware(consumers)),  # for apps: /app/ws/editors/
                re_path("", AllowedHostsOriginValidator(AuthMiddlewareStack(consumers))),  # for pages: /ws/editors/
            ]
        ),
    }
)

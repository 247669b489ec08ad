import os

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()  # sets Django up; imports of models come after it

from chat.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
# First: the imports below need the applications.
django_application = get_asgi_application()

from chat.middleware import CountMiddleware
from chat.routing import websocket_urlpatterns

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(CountMiddleware(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))),
    }
)

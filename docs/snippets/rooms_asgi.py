from django.urls import path, re_path
from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.topics import LongPolling, TopicSocket

from rooms import Room

topics = TopicSocket.as_asgi(topics=[Room])
websocket = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter([path("socket/websocket", topics)])))

application = ProtocolTypeRouter(
    {
        "websocket": websocket,
        "http": URLRouter(
            [
                path("socket/longpoll", LongPolling(websocket)),
                re_path("", get_asgi_application()),  # everything else
            ]
        ),
    }
)

import os

from trio_channels.asgi import get_asgi_application
from trio_channels.metrics import MetricsApplication
from trio_channels.routing import ProtocolTypeRouter, URLRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from django.urls import path, re_path  # noqa: E402

from echo import Echo  # noqa: E402

token = os.environ.get("METRICS_TOKEN")  # unset in development and tests: then there is no such address
figures = [path("metrics", MetricsApplication(token=token))] if token else []

application = ProtocolTypeRouter(
    {
        "http": URLRouter([*figures, re_path("", django_application)]),
        "websocket": URLRouter([path("ws/echo/", Echo.as_asgi())]),
    }
)

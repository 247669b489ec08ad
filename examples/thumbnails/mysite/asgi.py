"""The ASGI application of the server and of the worker."""

import os

from trio_channels.asgi import get_asgi_application
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
# Before the import of models: this sets up Django.
django_application = get_asgi_application()

from django.urls import path  # noqa: E402
from gallery.consumers import GalleryConsumer, ThumbnailConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(URLRouter([path("ws/gallery/", GalleryConsumer.as_asgi())])),
        # `manage.py runworker thumbnails` runs this for each message.
        "channel": ChannelNameRouter({"thumbnails": ThumbnailConsumer.as_asgi()}),
    }
)

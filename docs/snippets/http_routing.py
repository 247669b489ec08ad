from django.urls import path, re_path
from trio_channels.asgi import get_asgi_application
from trio_channels.routing import ProtocolTypeRouter, URLRouter

from long_poll import NextNews
from server_sent_events import News

http = URLRouter(
    [
        path("news/", News.as_asgi()),
        path("news/next/", NextNews.as_asgi()),
        re_path("", get_asgi_application()),  # everything else
    ]
)
application = ProtocolTypeRouter({"http": http})

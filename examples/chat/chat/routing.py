"""The WebSocket routes; the counterpart of ``urls.py``."""

from django.urls import path

from . import rooms  # noqa: F401  (registers the converter)
from .consumers import ChatConsumer

websocket_urlpatterns = [
    path("ws/chat/<room:room>/", ChatConsumer.as_asgi()),
]

"""The WebSocket route; the counterpart of ``urls.py``."""

from django.urls import path

from .topics import ChatSocket, Room, Rooms

websocket_urlpatterns = [
    path("socket/websocket", ChatSocket.as_asgi(topics=[Rooms, Room])),
]

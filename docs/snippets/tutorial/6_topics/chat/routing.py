from django.urls import path
from trio_channels.topics import TopicSocket

from .topics import People, Room

websocket_urlpatterns = [path("socket/websocket", TopicSocket.as_asgi(topics=[People, Room]))]

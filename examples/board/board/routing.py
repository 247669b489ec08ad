"""The route of the WebSocket, which carries the topics of a page."""

from django.urls import path

from trio_channels.topics import TopicSocket

from .topics import BoardTopic, CursorsTopic

websocket_urlpatterns = [path("socket/websocket", TopicSocket.as_asgi(topics=[BoardTopic, CursorsTopic]))]

from django.urls import path

from .consumers import Notes

websocket_urlpatterns = [path("ws/notes/", Notes.as_asgi())]

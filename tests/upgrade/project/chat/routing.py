from django.urls import path

from . import consumers, jobs

websocket_urlpatterns = [
    path("ws/chat/<str:room>/", consumers.ChatConsumer.as_asgi()),
    path("ws/ticks/", jobs.TickConsumer.as_asgi()),
]

"""A synchronous Django site for gunicorn; its code does not use Trio."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync


def say(request: HttpRequest, text: str) -> HttpResponse:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": "said", "text": text})
    return HttpResponse("sent")


urlpatterns = [path("say/<str:text>/", say)]
application = get_wsgi_application()

"""The pages of the site."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.event_stream import EventStream, stream_position
from trio_channels.routing import ProtocolTypeRouter

NAMES = ("room:1", "room:2")


async def page(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, f"event_stream/{name}.html", {"since": await stream_position(*NAMES)})


def script(request: HttpRequest, name: str) -> FileResponse:
    return FileResponse((Path(settings.SCRIPTS) / "node_modules" / name).open("rb"))


urlpatterns = [
    path(
        "events/",
        EventStream.as_view(signed=True, templates={"message.html": "event_stream/message.html"}),
        name="trio_stream",
    ),
    path("open-events/", EventStream.as_view(groups=NAMES)),
    path("page/<slug:name>/", page),
    path("script/<path:name>", script),
]

application = ProtocolTypeRouter({"http": get_asgi_application()})

"""The same page, with events that need no asyncio. The documentation shows this file from "import trio" on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django_browser_reload import views


async def reload_events(_request: HttpRequest) -> StreamingHttpResponse:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield views.message("ping", versionId=views.version_id)
            await trio.sleep(1)
            if views.should_reload_event.is_set():
                views.should_reload_event.clear()
                yield views.message("reload")

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def change(_request: HttpRequest) -> HttpResponse:
    views.trigger_reload_soon()
    return HttpResponse("changed")


urlpatterns = [
    path("change/", change),
    path("__reload__/events/", reload_events),
    path("__reload__/", include("django_browser_reload.urls")),
]

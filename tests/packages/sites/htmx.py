"""Pages that answer htmx with a part."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django_htmx.http import trigger_client_event

from .common import meet, meet_in_thread


def answer(request: HttpRequest) -> HttpResponse:
    if not request.htmx:
        return HttpResponse("whole")
    return trigger_client_event(HttpResponse(f"part for {request.htmx.target}"), "loaded")


def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    return answer(request)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    return answer(request)


urlpatterns = [path("sync/", sync), path("async/", asynchronous)]

"""Pages of every kind, which are counted, and the page of the counts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path


def sync(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(User.objects.count()))


async def asynchronous(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await User.objects.acount()))


async def streamed(_request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(3):
            yield "part"

    return StreamingHttpResponse(parts())


def failing(_request: HttpRequest) -> HttpResponse:
    raise ValueError("on purpose")


urlpatterns = [
    path("sync/", sync, name="sync"),
    path("async/", asynchronous, name="async"),
    path("streamed/", streamed, name="streamed"),
    path("failing/", failing, name="failing"),
    path("", include("django_prometheus.urls")),
]

"""A sync view and an async one."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def sync(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("sync")


async def asynchronous(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("async")


urlpatterns = [path("sync/", sync), path("async/", asynchronous)]

"""Pages with an inline script that needs the nonce."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from .common import meet, meet_in_thread


def page(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string('<script nonce="{{ request.csp_nonce }}"></script>')
    return HttpResponse(template.render({}, request))


def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    return page(request)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    return page(request)


urlpatterns = [path("sync/", sync), path("async/", asynchronous)]

"""Pages that query their own user by name, and wait for each other in between."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path

from .common import meet, meet_in_thread


def page(name: str) -> HttpResponse:
    return HttpResponse(f"<html><body><p>{name}</p></body></html>")


def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    found = User.objects.get(username=request.GET["user"])
    meet_in_thread(request)
    return page(found.username)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    found = await User.objects.aget(username=request.GET["user"])
    await meet(request)
    return page(found.username)


urlpatterns = [path("sync/", sync), path("async/", asynchronous), *debug_toolbar_urls()]

"""The pages of allauth, and a sync and an async page for members."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from .common import meet, meet_in_thread


@login_required
def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    return HttpResponse(request.user.username)


@login_required
async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    user = await request.auser()
    await meet(request)
    return HttpResponse(user.username)


urlpatterns = [path("accounts/", include("allauth.urls")), path("sync/", sync), path("async/", asynchronous)]

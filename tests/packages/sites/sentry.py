"""Views that fail, after they have waited for each other."""

from __future__ import annotations

import sentry_sdk
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path

from .common import login_as, meet, meet_in_thread


def sync(request: HttpRequest) -> HttpResponse:
    sentry_sdk.set_tag("name", request.user.username)
    meet_in_thread(request)
    User.objects.get(username=request.user.username)
    meet_in_thread(request)
    raise ValueError(request.user.username)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    sentry_sdk.set_tag("name", user.username)
    await meet(request)
    await User.objects.aget(username=user.username)
    await meet(request)
    raise ValueError(user.username)


urlpatterns = [path("login/", login_as), path("sync/", sync), path("async/", asynchronous)]

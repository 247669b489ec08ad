"""Views that fail, after they have waited for each other."""

from __future__ import annotations

import elasticapm
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path

from .common import login_as, meet, meet_in_thread


def sync(request: HttpRequest) -> HttpResponse:
    elasticapm.label(name=request.user.username)
    meet_in_thread(request)
    User.objects.get(username=request.user.username)
    meet_in_thread(request)
    raise ValueError(request.user.username)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    elasticapm.label(name=user.username)
    await meet(request)
    await User.objects.aget(username=user.username)
    await meet(request)
    raise ValueError(user.username)


urlpatterns = [path("login/", login_as), path("sync/", sync), path("async/", asynchronous)]

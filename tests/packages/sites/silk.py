"""Pages with one query each, and silk's records of them."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from silk.models import Request

from .common import meet, meet_in_thread


def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    found = User.objects.get(username=request.GET["user"])
    meet_in_thread(request)
    return HttpResponse(found.username)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    found = await User.objects.aget(username=request.GET["user"])
    await meet(request)
    return HttpResponse(found.username)


def recorded(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            request.query_params: [query.query for query in request.queries.all()]
            for request in Request.objects.exclude(path="/recorded/")
        }
    )


urlpatterns = [
    path("sync/", sync),
    path("async/", asynchronous),
    path("recorded/", recorded),
    path("silk/", include("silk.urls", namespace="silk")),
]

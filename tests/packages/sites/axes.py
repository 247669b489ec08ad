"""A page to log in, and the attempts that axes has seen."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from axes.models import AccessAttempt
from django.contrib.auth import authenticate, login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def credentials(request: HttpRequest) -> dict[str, str]:
    return {"username": request.POST["username"], "password": request.POST["password"]}


@csrf_exempt
def sync(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, **credentials(request))
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(user.username)


@csrf_exempt
async def asynchronous(request: HttpRequest) -> HttpResponse:
    user = await sync_to_async(authenticate)(request, **credentials(request))
    return HttpResponse("wrong", status=401) if user is None else HttpResponse(user.username)


def attempts(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {attempt.ip_address: attempt.failures_since_start for attempt in AccessAttempt.objects.order_by("pk")}
    )


urlpatterns = [path("sync/", sync), path("async/", asynchronous), path("attempts/", attempts)]

"""A page to log in, consumers that log in and out, and the records of axes."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from trio_channels import auth
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.sync import async_to_sync


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


def accesses(_request: HttpRequest) -> JsonResponse:
    """Each login: the user, the client, the path, and whether a logout has been seen."""
    logs = AccessLog.objects.order_by("pk")
    return JsonResponse(
        {
            "accesses": [
                [log.username, log.ip_address, log.user_agent, log.path_info, log.logout_time is not None]
                for log in logs
            ]
        }
    )


BACKEND = "django.contrib.auth.backends.ModelBackend"


class Async(AsyncWebsocketConsumer):
    """Logs a user in by name, and out at an empty name."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            await auth.login(self.scope, await User.objects.aget(username=text_data), BACKEND)
        else:
            await auth.logout(self.scope)
        await self.send(self.scope["user"].username)


class Sync(WebsocketConsumer):
    """As :class:`Async`, with sync code."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            async_to_sync(auth.login)(self.scope, User.objects.get(username=text_data), BACKEND)
        else:
            async_to_sync(auth.logout)(self.scope)
        self.send(self.scope["user"].username)


urlpatterns = [
    path("sync/", sync),
    path("async/", asynchronous),
    path("attempts/", attempts),
    path("accesses/", accesses),
]
websocket_urlpatterns = [
    path("sync/", auth.AuthMiddlewareStack(Sync.as_asgi())),
    path("async/", auth.AuthMiddlewareStack(Async.as_asgi())),
]

"""The pages of allauth, a sync and an async page for members, and a consumer whose logins allauth notes."""

from __future__ import annotations

from allauth.usersessions.models import UserSession
from allauth.usersessions.signals import on_user_logged_in
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from trio_channels import auth
from trio_channels.generic.websocket import AsyncWebsocketConsumer

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


def devices(_request: HttpRequest) -> JsonResponse:
    """The logins, as allauth has noted them."""
    rows = UserSession.objects.order_by("pk").values_list("user__username", "ip", "user_agent")
    return JsonResponse({"devices": list(rows)})


class Login(AsyncWebsocketConsumer):
    """Logs a user in by name."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        user = await User.objects.aget(username=text_data)
        await auth.login(self.scope, user, "allauth.account.auth_backends.AuthenticationBackend")
        await self.send(user.username)


# allauth itself sends its own signal, from its own pages.
user_logged_in.connect(on_user_logged_in)

urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("sync/", sync),
    path("async/", asynchronous),
    path("devices/", devices),
]
websocket_urlpatterns = [path("login/", auth.AuthMiddlewareStack(Login.as_asgi()))]

import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

import jwt
import trio
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.middleware import BaseMiddleware
from trio_channels.routing import ProtocolTypeRouter, URLRouter


def token_for(user: User) -> str:
    """Give this to a client that has logged in; it is good for five minutes."""
    return jwt.encode({"sub": str(user.pk), "exp": int(time.time()) + 300}, settings.SECRET_KEY, "HS256")


@csrf_exempt  # an app has no cookie that another site could use
@require_POST
def log_in(request: HttpRequest) -> JsonResponse:
    """A view of your urls.py, in which an app logs in."""
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    return JsonResponse({"token": token_for(user)} if isinstance(user, User) else {}, status=200 if user else 401)


def token_in(scope: MutableMapping[str, Any]) -> str | None:
    """The token of the header Authorization, among the subprotocols, as ``bearer.TOKEN``, or of ``?token=TOKEN``."""
    kind, _, token = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        return str(token)
    for subprotocol in scope.get("subprotocols", ()):
        if subprotocol.startswith("bearer."):
            return str(subprotocol).removeprefix("bearer.")
    query: dict[str, list[str]] = parse_qs(scope["query_string"].decode())
    return query["token"][0] if "token" in query else None


class TokenMiddleware(BaseMiddleware):
    """Puts the user of a token into the scope, and the token's contents."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> Any:
        scope = {**scope, "user": AnonymousUser(), "token": {}}
        token = token_in(scope)
        if token is not None:
            try:
                claims = jwt.decode(
                    token, settings.SECRET_KEY, algorithms=["HS256"], options={"require": ["exp", "sub"]}
                )
                scope["user"] = await User.objects.aget(pk=int(claims["sub"]), is_active=True)
                scope["token"] = claims
            except (jwt.InvalidTokenError, ValueError, OverflowError, User.DoesNotExist):
                pass  # a visitor
        return await super().__call__(scope, receive, send)


class Account(AsyncWebsocketConsumer):
    """Open for as long as the token is good."""

    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            await self.close()
            return
        await self.accept("account" if "account" in self.scope["subprotocols"] else None)
        self.start_soon(self.expire)
        await self.send(f"hello, {self.scope['user']}")

    async def expire(self) -> None:
        await trio.sleep(max(0, self.scope["token"]["exp"] - time.time()))
        await self.close(4401, "the token has expired")


application = ProtocolTypeRouter(
    {"websocket": TokenMiddleware(URLRouter([path("ws/account/", Account.as_asgi())]))},
)

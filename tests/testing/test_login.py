"""Logged-in communicators, through the real middleware."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator


class Greets(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        await self.send(str(self.scope["user"]) + " " + " ".join(sorted(self.scope["cookies"])))


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user))


urlpatterns = [path("who/", who)]
greets = AuthMiddlewareStack(URLRouter([path("ws/", Greets.as_asgi())]))


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


async def greeting(ws: WebsocketCommunicator) -> str | bytes:
    async with ws:
        assert await ws.connect() == (True, None)
        return await ws.receive_from()


async def test_client_without_login_is_anonymous() -> None:
    assert await greeting(WebsocketCommunicator(greets, "/ws/")) == "AnonymousUser "


async def test_logged_in_websocket_has_its_user(ada: User) -> None:
    ws = WebsocketCommunicator(greets, "/ws/")
    await ws.login(ada)
    assert await greeting(ws) == "ada sessionid"


@pytest.mark.parametrize(
    "engine", ["cache", "cached_db", "db", "signed_cookies"], ids=lambda engine: engine.replace("_", "-")
)
async def test_every_kind_of_session_logs_in(ada: User, engine: str) -> None:
    caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}", SESSION_COOKIE_NAME="other", CACHES=caches
    ):
        ws = WebsocketCommunicator(greets, "/ws/")
        await ws.login(ada)
        assert await greeting(ws) == "ada other"


@override_settings(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
)
async def test_logged_in_request_has_its_user(ada: User) -> None:
    application = ProtocolTypeRouter({"http": get_asgi_application()})
    async with HttpCommunicator(application, "GET", "/who/", headers=[(b"host", b"localhost")]) as http:
        await http.login(ada)
        assert (await http.get_response())["body"] == b"ada"


async def test_cookies_of_djangos_client_are_sent(ada: User, client: Client) -> None:
    await client.aforce_login(ada)
    client.cookies["theme"] = "dark side"
    ws = WebsocketCommunicator(greets, "/ws/")
    ws.add_cookies(client.cookies)
    assert await greeting(ws) == "ada sessionid theme"
    assert b'theme="dark side"' in dict(ws.scope["headers"])[b"cookie"]


async def test_cookies_come_to_those_of_the_headers(ada: User) -> None:
    ws = WebsocketCommunicator(greets, "/ws/", headers=[(b"Cookie", b"theme=dark"), (b"host", b"localhost")])
    await ws.login(ada)
    ws.add_cookies({"lang": "de"})
    assert await greeting(ws) == "ada lang sessionid theme"
    assert [name for name, _ in ws.scope["headers"]] == [b"host", b"cookie"]


async def test_last_login_counts(ada: User) -> None:
    grace = await User.objects.acreate(username="grace")
    ws = WebsocketCommunicator(greets, "/ws/")
    await ws.login(ada)
    await ws.login(grace)
    assert await greeting(ws) == "grace sessionid"


async def test_login_sends_djangos_signal(ada: User) -> None:
    users: list[Any] = []

    def note(user: User, **_kwargs: object) -> None:
        users.append(user)

    user_logged_in.connect(note)
    try:
        await WebsocketCommunicator(greets, "/ws/").login(ada)
    finally:
        user_logged_in.disconnect(note)
    assert users == [ada]


async def test_any_scope_takes_cookies() -> None:
    scope: dict[str, Any] = {"type": "http"}
    ApplicationCommunicator(greets, scope).add_cookies({"a": "1", "b": "2"})
    assert scope["headers"] == [(b"cookie", b"a=1; b=2")]


async def test_login_after_the_request_is_too_late(ada: User) -> None:
    async with WebsocketCommunicator(greets, "/ws/") as ws:
        await ws.connect()
        with pytest.raises(RuntimeError, match="before it is sent"):
            await ws.login(ada)

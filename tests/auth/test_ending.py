"""The setting CLOSE_ON_LOGOUT: which connections the end of a login closes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from django.contrib.auth import alogout, authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, override_settings
from django.urls import path

from trio_channels import auth
from trio_channels.auth import AuthMiddlewareStack, ending
from trio_channels.closing import close_user
from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.sync import sync_to_async
from trio_channels.testing import WebsocketCommunicator

from .test_auth import cookie_of, session_of

pytestmark = pytest.mark.usefixtures("blocking_queries", "channel_layer")


@pytest.fixture(autouse=True)
def switched_on() -> Any:
    ending.connect()  # as the app does
    with override_settings(TRIO_CHANNELS={"CLOSE_ON_LOGOUT": True}, ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE):
        yield


MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def ada(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="engine")


class Room(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "logout":
            await auth.logout(self.scope)
        await self.send("still here")


class Sockets:
    """The sockets of two sessions of ada's, and of one of grace's."""

    def __init__(self, sessions: dict[str, SessionStore], clients: dict[str, WebsocketCommunicator]) -> None:
        self.sessions = sessions
        self.clients = clients

    def client(self, name: str) -> AsyncClient:
        """A browser with the cookie of that session."""
        client = AsyncClient()
        client.cookies["sessionid"] = str(self.sessions[name].session_key)
        return client

    async def assert_closed(self, *names: str) -> None:
        for name, client in self.clients.items():
            if name in names:
                message = await client.receive_output()
                assert (message["type"], message.get("code")) == ("websocket.close", 1008), name
            else:
                await client.send_to(text_data="there?")
                assert await client.receive_from() == "still here", name


@pytest.fixture
async def sockets(ada: User) -> AsyncIterator[Sockets]:
    grace = await sync_to_async(User.objects.create_user)("grace")
    owners = {"laptop": ada, "phone": ada, "grace": grace}
    sessions = {name: await sync_to_async(session_of)(user) for name, user in owners.items()}
    async with AsyncExitStack() as stack:
        clients = {}
        for name, session in sessions.items():
            ws = WebsocketCommunicator(AuthMiddlewareStack(Room.as_asgi()), "/", headers=cookie_of(session))
            clients[name] = await stack.enter_async_context(ws)
            assert await ws.connect() == (True, None)
        yield Sockets(sessions, clients)


def logout_view(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


async def async_logout_view(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


def password_view(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    user.set_password("difference")
    user.save()
    update_session_auth_hash(request, user)
    return HttpResponse()


def login_view(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get(username=request.GET["name"]), "django.contrib.auth.backends.ModelBackend")
    return HttpResponse()


urlpatterns = [
    path("logout/", logout_view),
    path("async-logout/", async_logout_view),
    path("password/", password_view),
    path("login/", login_view),
]


@pytest.mark.parametrize(
    ("address", "closed"),
    [
        ("/logout/", ["laptop"]),
        ("/async-logout/", ["laptop"]),
        ("/password/", ["laptop", "phone"]),
        ("/login/?name=ada", []),  # the session goes on
        ("/login/?name=grace", ["laptop"]),
    ],
)
async def test_view_closes_the_sockets_of_the_ended_sessions(address: str, closed: list[str], sockets: Sockets) -> None:
    assert (await sockets.client("laptop").get(address)).status_code == 200
    await sockets.assert_closed(*closed)


def deactivate(ada: User) -> None:
    ada.is_active = False
    ada.save()


def new_password(ada: User) -> None:
    ada.set_password("difference")
    ada.save()


def rename(ada: User) -> None:
    ada.first_name = "Augusta"
    ada.save()


def check_password(ada: User) -> None:
    assert authenticate(username="ada", password="engine") == ada


def save_something_else(ada: User) -> None:
    Group.objects.create(name="analysts").delete()
    User.objects.create_user("linus", is_active=False)


@pytest.mark.parametrize(
    ("change", "closed"),
    [
        (deactivate, ["laptop", "phone"]),
        (new_password, ["laptop", "phone"]),
        (User.delete, ["laptop", "phone"]),
        (rename, []),
        (check_password, []),
        (save_something_else, []),
    ],
)
async def test_change_of_a_user_closes_all_sockets(
    change: Callable[[User], object], closed: list[str], ada: User, sockets: Sockets
) -> None:
    await sync_to_async(change)(ada)
    await sockets.assert_closed(*closed)


async def test_logout_over_a_socket_closes_the_others_of_its_session(sockets: Sockets) -> None:
    headers = cookie_of(sockets.sessions["laptop"])
    async with WebsocketCommunicator(AuthMiddlewareStack(Room.as_asgi()), "/", headers=headers) as ws:
        await ws.connect()
        await ws.send_to(text_data="logout")
        assert await ws.receive_from() == "still here"
        await sockets.assert_closed("laptop")


async def test_transaction_that_is_rolled_back_closes_nothing(ada: User, sockets: Sockets) -> None:
    def change() -> None:
        with transaction.atomic():
            deactivate(ada)
            transaction.set_rollback(True)

    await sync_to_async(change)()
    await sockets.assert_closed()


async def test_it_is_off_by_default(ada: User, sockets: Sockets) -> None:
    with override_settings(TRIO_CHANNELS={}):
        for address in ("/logout/", "/login/?name=ada"):
            await sockets.client("laptop").get(address)
        await sync_to_async(new_password)(ada)
        await sync_to_async(ada.delete)()
    await sockets.assert_closed()


async def test_nobody_who_logs_out_closes_nothing(sockets: Sockets) -> None:
    assert (await AsyncClient().get("/logout/")).status_code == 200
    await sockets.assert_closed()


async def test_failure_is_logged_and_the_logout_goes_on(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def unavailable(*_args: object) -> None:
        raise ChannelLayerUnavailable("Redis is away")

    monkeypatch.setattr(ending, "close_session", unavailable)
    client = sockets.client("laptop")
    assert (await client.get("/logout/")).status_code == 200
    assert not await sync_to_async(SessionStore().exists)(sockets.sessions["laptop"].session_key)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.auth", logging.ERROR)


async def test_session_is_as_before_after_its_logout(ada: User, sockets: Sockets) -> None:
    session = sockets.sessions["laptop"]

    def end() -> None:
        ending._logged_out(type("Request", (), {"session": session})())
        session.flush()

    await sync_to_async(end)()
    assert not {"flush", "aflush"} & set(vars(session))
    await sockets.assert_closed("laptop")


async def test_user_may_be_closed_with_its_object(ada: User, sockets: Sockets) -> None:
    await close_user(ada, code=1008)
    await sockets.assert_closed("laptop", "phone")

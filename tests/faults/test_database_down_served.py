"""A site is served while its database is away: the answers to HTTP and WebSocket clients, and the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from trio_websocket import ConnectionClosed, ConnectionRejected

from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.server import serve
from trio_channels.sync import sync_to_async

from ..integration.server.conftest import Server, config_for_tests
from ..postgres import PostgresServer

pytestmark = pytest.mark.faults


def synchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(User.objects.count()))


async def asynchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await User.objects.acount()))


def without(request: HttpRequest) -> HttpResponse:
    return HttpResponse("needs no database")


urlpatterns = [path("sync/", synchronous), path("async/", asynchronous), path("without/", without)]


class Greeting(AsyncWebsocketConsumer):
    """Greets its user. Answers ``echo`` with itself, and anything else with the number of users."""

    async def connect(self) -> None:
        await self.accept()
        await self.send(f"hello {self.scope['user'].get_username() or 'anonymous'}")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data if text_data == "echo" else str(await User.objects.acount()))


class Site:
    """A site that is served, and its database.

    Attributes:
        cookie: the headers of a client that is logged in as ada.
    """

    def __init__(self, server: Server, postgres: PostgresServer, cookie: list[tuple[bytes, bytes]]) -> None:
        self.server = server
        self.postgres = postgres
        self.cookie = cookie

    async def get(self, where: str) -> tuple[int, bytes]:
        response = await self.server.request("GET", where)
        return response.status, response.body

    @asynccontextmanager
    async def greeted(self, headers: list[tuple[bytes, bytes]]) -> AsyncIterator[tuple[Any, str]]:
        """A WebSocket, and its greeting."""
        async with self.server.websocket("/", extra_headers=headers) as client:
            yield client, await client.get_message()

    async def greeting(self, headers: list[tuple[bytes, bytes]]) -> str:
        async with self.greeted(headers) as (_, greeting):
            return greeting


def _cookie_of_ada() -> list[tuple[bytes, bytes]]:
    ada = User.objects.create_user("ada")
    session = SessionStore()
    session[SESSION_KEY] = str(ada.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = ada.get_session_auth_hash()
    session.save()
    return [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={session.session_key}".encode())]


@pytest.fixture(params=[0, None], ids=["a connection per request", "persistent connections"])
def database(postgres_database: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[None]:
    """A PostgreSQL database with the connection settings of a site, and the site's URLs."""
    postgres_database |= {"CONN_MAX_AGE": request.param, "CONN_HEALTH_CHECKS": True}
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        yield


@pytest.fixture
async def site(database: None, postgres: PostgresServer, nursery: trio.Nursery) -> AsyncIterator[Site]:
    application = ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": AuthMiddlewareStack(URLRouter([path("", Greeting.as_asgi())])),
        }
    )
    stop = trio.Event()
    cookie = await sync_to_async(_cookie_of_ada)()
    start: Any = partial(serve, application, config_for_tests(), shutdown_trigger=stop.wait)
    (address,) = await nursery.start(start)
    yield Site(Server(int(address.rpartition(":")[2])), postgres, cookie)
    stop.set()
    # Restart the server: if the test has stopped it, the later tests need it.
    await trio.to_thread.run_sync(postgres.stop)
    await trio.to_thread.run_sync(postgres.start)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Any:
    """A function that takes the errors logged since its last call."""

    def take() -> list[logging.LogRecord]:
        found = [record for record in caplog.records if record.levelno >= logging.ERROR]
        caplog.clear()
        return found

    return take


async def test_views_are_500_until_the_database_is_back(site: Site, errors: Any) -> None:
    for where in ("/sync/", "/async/"):
        assert await site.get(where) == (200, b"1")
    site.postgres.stop()
    for where in ("/sync/", "/async/"):
        assert (await site.get(where))[0] == 500
        assert [(record.name, record.getMessage()) for record in errors()] == [
            ("django.request", f"Internal Server Error: {where}")
        ]
    assert await site.get("/without/") == (200, b"needs no database")
    site.postgres.start()
    for where in ("/sync/", "/async/"):
        assert await site.get(where) == (200, b"1")
    assert errors() == []


async def test_session_is_refused_until_the_database_is_back(site: Site, errors: Any) -> None:
    assert await site.greeting(site.cookie) == "hello ada"
    site.postgres.stop()
    for _ in range(2):
        with pytest.raises(ConnectionRejected) as rejected:
            await site.greeting(site.cookie)
        assert rejected.value.status_code == 500
        (record,) = errors()
        assert record.exc_info is not None
        assert "OperationalError" in (text := logging.Formatter().format(record))
        assert "on websocket / from 127.0.0.1" in text
    site.postgres.start()
    assert await site.greeting(site.cookie) == "hello ada"
    assert errors() == []


async def test_who_has_no_session_is_let_in_all_the_same(site: Site, errors: Any) -> None:
    site.postgres.stop()
    assert await site.greeting([]) == "hello anonymous"
    assert errors() == []


async def test_connection_that_needs_redis_is_closed_with_1011(site: Site, errors: Any) -> None:
    async with site.greeted(site.cookie) as (bystander, _):
        site.postgres.stop()
        async with site.greeted([]) as (client, _):
            await client.send_message("how many?")
            with pytest.raises(ConnectionClosed) as closed:
                await client.get_message()
            assert closed.value.reason.code == 1011
        found = errors()
        while not found:  # the client is told before the server logs it
            await trio.lowlevel.checkpoint()
            found = errors()
        assert len(found) == 1
        await bystander.send_message("echo")
        assert await bystander.get_message() == "echo"
        site.postgres.start()
        await bystander.send_message("how many?")
        assert await bystander.get_message() == "1"
    assert errors() == []


async def test_crowd_is_refused_and_let_in_afterwards(site: Site, errors: Any) -> None:
    number = 40

    async def try_to_connect(outcomes: list[object]) -> None:
        try:
            outcomes.append(await site.greeting(site.cookie))
        except ConnectionRejected as rejected:
            outcomes.append(rejected.status_code)

    async def crowd() -> list[object]:
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(try_to_connect, outcomes)
        return outcomes

    assert await crowd() == ["hello ada"] * number
    site.postgres.stop()
    assert await crowd() == [500] * number
    assert len(errors()) == number
    site.postgres.start()
    assert await crowd() == ["hello ada"] * number
    assert errors() == []

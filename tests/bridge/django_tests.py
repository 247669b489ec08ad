"""A project of one file, with Django's own kinds of tests; test_outside.py runs them by both runners."""

# ruff: noqa: E402 - Django must be set up first

from __future__ import annotations

import sys

import trio
from asgiref.sync import async_to_sync
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="of no worth",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["trio_channels", "django.contrib.auth", "django.contrib.contenttypes"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SILENCED_SYSTEM_CHECKS=["trio_channels.W001"],
    )

import django

django.setup()

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.urls import path

from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.testing import ChannelsLiveServerTestCase, WebsocketCommunicator


async def view(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    await User.objects.acreate(username="of the view")
    return HttpResponse(str(await User.objects.acount()))


urlpatterns = [path("", view)]


class Room(AsyncWebsocketConsumer):
    groups = ["room"]

    async def connect(self) -> None:
        await self.accept()
        await self.send(str(await User.objects.acount()))

    async def said(self, event: dict[str, str]) -> None:
        await self.send(event["text"])


class InTransaction(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        User.objects.create(username="ada")

    async def test_rows_of_the_test_are_seen(self) -> None:
        assert await User.objects.acount() == 1
        await User.objects.acreate(username="grace")
        assert await database_sync_to_async(User.objects.count)() == 2
        assert (await self.async_client.get("/")).content == b"3"

    async def test_rows_of_other_tests_are_not(self) -> None:
        assert await User.objects.acount() == 1

    async def test_communicator_with_a_layer(self) -> None:
        async with WebsocketCommunicator(Room.as_asgi(), "/") as client:
            assert (await client.connect(60))[0]
            assert await client.receive_from(60) == "1"
            layer = get_channel_layer()
            assert layer is not None
            await layer.group_send("room", {"type": "said", "text": "hello"})  # type: ignore[union-attr]
            assert await client.receive_from(60) == "hello"

    async def test_inner_transaction(self) -> None:
        async with aatomic():
            await User.objects.acreate(username="mary")
        assert await User.objects.acount() == 2

    def test_synchronous_client(self) -> None:
        assert self.client.get("/").content == b"2"
        assert User.objects.count() == 2

    def test_asgirefs_call_of_a_layer(self) -> None:
        layer = get_channel_layer()
        assert layer is not None
        async_to_sync(layer.group_send)("room", {"type": "said"})  # type: ignore[union-attr]


class Committed(TransactionTestCase):
    async def test_rows_are_committed(self) -> None:
        await User.objects.acreate(username="grace")
        assert await User.objects.acount() == 1

    async def test_tables_are_emptied(self) -> None:
        assert await User.objects.acount() == 0


class Simple(SimpleTestCase):
    async def test_trio_runs(self) -> None:
        await trio.lowlevel.checkpoint()

    async def test_database_is_refused(self) -> None:
        with self.assertRaisesMessage(AssertionError, "Database"):
            await User.objects.acount()


class Live(ChannelsLiveServerTestCase):
    async def test_beside_a_live_server(self) -> None:
        assert await User.objects.acount() == 0


async def application(scope: object, receive: object, send: object) -> None:
    raise LookupError


if __name__ == "__main__":
    from django.test.runner import DiscoverRunner

    settings.ASGI_APPLICATION = "__main__.application"
    sys.exit(DiscoverRunner(verbosity=2).run_tests(["__main__"]))

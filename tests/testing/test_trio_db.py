"""``trio_db``: a test's transaction, seen from its worker threads."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._http.handler import DjangoHandler
from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import WebsocketConsumer
from trio_channels.sync import sync_to_async
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.testing._connections import shared_connections


@pytest.fixture
def ada(db: None) -> User:
    """A row that the test's own thread has made, in the test's transaction."""
    return User.objects.create_user("ada")


def names() -> list[str]:
    return sorted(User.objects.values_list("username", flat=True))


urlpatterns = [path("names/", lambda request: HttpResponse(" ".join(names())))]


class Names(WebsocketConsumer):
    """A synchronous consumer, which works in a worker thread."""

    def connect(self) -> None:
        User.objects.create_user("grace")
        self.accept()
        self.send(text_data=" ".join(names()))


async def test_worker_threads_see_what_a_fixture_has_stored(ada: User, trio_db: None) -> None:
    assert await database_sync_to_async(names)() == ["ada"]


async def test_consumers_work_in_the_transaction_too(ada: User, trio_db: None) -> None:
    async with WebsocketCommunicator(Names.as_asgi(), "/") as client:
        assert await client.connect(timeout=30) == (True, None)
        assert await client.receive_from(timeout=30) == "ada grace"
    assert await sync_to_async(names)() == ["ada", "grace"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_what_a_test_stores_is_gone_in_the_next(trio_db: None, turn: int) -> None:
    await sync_to_async(User.objects.create_user)("grace")
    assert await sync_to_async(names)() == ["grace"]


async def test_request_works_in_the_transaction_too(ada: User, trio_db: None) -> None:
    for _ in range(2):  # the end of a request has Django look after its connections
        with override_settings(ROOT_URLCONF=__name__):
            async with HttpCommunicator(DjangoHandler(), "GET", "/names/") as client:
                assert (await client.get_response(timeout=30))["body"] == b"ada"


async def test_part_of_a_test_can_be_rolled_back(trio_db: None) -> None:
    @sync_to_async
    def fail() -> None:
        with transaction.atomic():
            User.objects.create_user("grace")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await sync_to_async(names)() == []


async def test_threads_used_before_are_an_error(db: None) -> None:
    await sync_to_async(int)()
    with pytest.raises(ConfigurationError, match="Share the connections first"):
        async with shared_connections({}):
            pytest.fail("shared")


async def test_connection_may_be_lent_twice(ada: User, trio_db: None) -> None:
    """A Trio run inside of the test's, as a synchronous test helper may make one."""

    async def inner() -> None:
        async with shared_connections({"default": connections["default"]}):
            assert await sync_to_async(names)() == ["ada"]

    def lend_again() -> list[str]:
        trio.run(inner)
        connections["default"].close_if_unusable_or_obsolete()  # as at the end of each request
        return names()

    assert await sync_to_async(lend_again)() == ["ada"]
    assert await sync_to_async(names)() == ["ada"]


# -- on SQLite and on PostgreSQL --------------------------------------------------------------------------------------


@pytest.fixture
def rolled_back(database: dict[str, Any]) -> Any:
    """A transaction that is rolled back, as pytest-django's ``db``, on the given kind of database."""
    with transaction.atomic():
        User.objects.create_user("ada")
        yield
        assert names() == ["ada", "grace"]  # the test's own thread sees the worker's row
        transaction.set_rollback(True)
    assert names() == []


async def test_on_each_database_it_is_the_transaction_of_the_tests_thread(rolled_back: None) -> None:
    async with shared_connections({"default": connections["default"]}):
        assert await sync_to_async(names)() == ["ada"]
        await sync_to_async(User.objects.create_user)("grace")

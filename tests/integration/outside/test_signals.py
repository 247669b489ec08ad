"""``async_to_sync`` from Django's signal handlers, wherever the signal is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.core.signals import request_finished
from django.db import connections, transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.db import aatomic
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import HttpCommunicator

from .conftest import PATIENCE, Room
from .loops import counted_loops
from .test_processes import texts

pytestmark = pytest.mark.usefixtures("sqlite_database")


def say(text: str) -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": "said", "text": text})


def announce(instance: User, created: bool, **_kwargs: object) -> None:
    """The handler: announces a user at once, and again after the transaction is committed."""
    say(f"{instance.username} is saved")
    transaction.on_commit(lambda: say(f"{instance.username} is there"))


@pytest.fixture(autouse=True)
def connected() -> Iterator[None]:
    post_save.connect(announce, sender=User)
    yield
    post_save.disconnect(announce, sender=User)


def end() -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": "last"})


def in_trio(room: Room, act: Callable[[], Any], expected: int) -> list[str]:
    """Run `act` in a Trio run whose layer is open; returns the texts that the room gets. No other loop may start."""

    async def main() -> list[str]:
        layer = get_channel_layer()
        assert layer is not None
        async with layer, layer.subscribe("room") as events:
            with counted_loops() as loops:
                await act()
            assert loops == []
            with trio.fail_after(PATIENCE):
                heard = [await anext(events) for _ in range(expected)]
            return [event["text"] for event in heard if isinstance(event, dict)]

    return trio.run(main)


def test_model_that_is_saved_in_a_worker_thread(room: Room) -> None:
    heard = in_trio(room, lambda: sync_to_async(User.objects.create)(username="ada"), 2)
    assert heard == ["ada is saved", "ada is there"]


def test_model_that_is_saved_by_the_asynchronous_orm(room: Room) -> None:
    assert in_trio(room, lambda: User.objects.acreate(username="ada"), 2) == ["ada is saved", "ada is there"]


def test_models_that_are_saved_in_a_transaction_across_awaits(room: Room) -> None:
    async def act() -> None:
        async with aatomic():
            await User.objects.acreate(username="ada")
            await User.objects.acreate(username="grace")

    heard = in_trio(room, act, 4)
    assert heard == ["ada is saved", "grace is saved", "ada is there", "grace is there"]


def test_more_of_them_at_a_time_than_there_are_threads(room: Room) -> None:
    names = [f"user-{number}" for number in range(25)]

    async def act() -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(partial(User.objects.acreate, username=name))

    heard = in_trio(room, act, 2 * len(names))
    assert sorted(heard) == sorted(f"{name} is {what}" for name in names for what in ("saved", "there"))


def test_signal_of_the_request_itself(room: Room) -> None:
    def finished(**_kwargs: object) -> None:
        say("the request is finished")

    async def act() -> None:
        with override_settings(ROOT_URLCONF=__name__):
            async with HttpCommunicator(get_asgi_application(), "GET", "/join/ada/") as client:
                assert (await client.get_response(timeout=PATIENCE))["body"] == b"joined"

    request_finished.connect(finished)
    try:
        assert in_trio(room, act, 3) == ["ada is saved", "ada is there", "the request is finished"]
    finally:
        request_finished.disconnect(finished)


def join(request: HttpRequest, name: str) -> HttpResponse:
    User.objects.create(username=name)
    return HttpResponse("joined")


urlpatterns = [path("join/<str:name>/", join)]


def test_model_that_is_saved_in_plain_threads(room: Room) -> None:
    receiver = room.listen()
    names = [f"user-{number}" for number in range(25)]

    def save(name: str) -> None:
        try:
            User.objects.create(username=name)
        finally:
            connections["default"].close()

    with counted_loops() as loops, ThreadPoolExecutor(5) as executor:
        list(executor.map(save, names, timeout=PATIENCE))
    end()
    assert loops in ([], ["trio"])  # the background run, if this is its first use
    heard = texts(receiver.messages())
    assert sorted(heard) == sorted(f"{name} is {what}" for name in names for what in ("saved", "there"))


def test_what_is_rolled_back_is_not_announced_as_there(room: Room) -> None:
    receiver = room.listen()
    with transaction.atomic():
        User.objects.create(username="ada")
        transaction.set_rollback(True)
    end()
    assert texts(receiver.messages()) == ["ada is saved"]

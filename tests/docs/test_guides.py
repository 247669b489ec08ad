"""The samples of the guides about consumers, Channels 1 and nurseries."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.test import RequestFactory
from trio.testing import MockClock

from trio_channels.db import database_sync_to_async
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import WebsocketCommunicator
from trio_channels.worker import Worker

DOCS = Path(__file__).parents[2] / "docs"
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a sample from the folder of samples, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(DOCS / "snippets"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(DOCS / "snippets") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


@pytest.fixture
def channels_1(load: Load) -> Iterator[Any]:
    module = load("channels_1")
    yield module
    post_save.disconnect(module.user_saved, sender=User)


# -- consumers --------------------------------------------------------------------------------------------------------


async def test_consumer_of_the_guide_works(load: Load, channel_layer: ChannelLayer) -> None:
    ticker = load("consumers").Ticker.as_asgi()
    async with WebsocketCommunicator(ticker, "/") as first, WebsocketCommunicator(ticker, "/") as second:
        for one in (first, second):
            await one.connect()
            assert (await one.receive_json_from())["path"] == "/"
        await first.send_json_to(42)
        assert await first.receive_json_from() == await second.receive_json_from() == {"price": 42}
        await first.send_to("{")
        assert "error" in await first.receive_json_from()
        await channel_layer.flush()
        assert "missing" in await first.receive_json_from()


async def test_consumer_of_the_guide_says_when_it_ends(load: Load, channel_layer: ChannelLayer) -> None:
    async with channel_layer.subscribe("prices") as events:
        async with WebsocketCommunicator(load("consumers").Ticker.as_asgi(), "/") as ws:
            await ws.connect()
            await ws.disconnect(1001)
        assert (await anext(events))["value"] == "left with 1001"


async def test_consumer_of_the_guide_denies(load: Load, channel_layer: ChannelLayer) -> None:
    async with WebsocketCommunicator(load("consumers").Ticker.as_asgi(), "/?closed") as ws:
        assert (await ws.connect())[0] is False


def test_guide_has_every_attribute(load: Load) -> None:
    page = (DOCS / "how-to" / "consumers.md").read_text()
    shown = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    attributes = {
        name
        for cls in (AsyncJsonWebsocketConsumer, AsyncHttpConsumer)
        for base in cls.__mro__
        if base.__module__.startswith("trio_channels.")
        for name in inspect.get_annotations(base)
        if not name.startswith("_")
    }
    assert attributes <= shown
    ticker = vars(load("consumers").Ticker)
    settable = attributes - {"channel_layer", "channel_name", "scope", "max_body_size"}
    assert settable <= set(ticker)


# -- Channels 1 -------------------------------------------------------------------------------------------------------


async def test_test_of_the_guide_passes(load: Load, channels_1: Any, ada: User, channel_layer: ChannelLayer) -> None:
    await load("channels_1_tests").test_chat(ada, channel_layer)


@pytest.mark.django_db(transaction=True)
async def test_change_of_a_model_is_told(channels_1: Any, channel_layer: ChannelLayer) -> None:
    class Users(AsyncJsonWebsocketConsumer):
        groups = ["users"]

    async with WebsocketCommunicator(Users.as_asgi(), "/") as ws:
        await ws.connect()
        user = await database_sync_to_async(User.objects.create_user)("grace")
        assert await ws.receive_json_from() == {"action": "create", "pk": user.pk, "username": "grace"}
        await user.asave()
        assert (await ws.receive_json_from())["action"] == "update"


async def test_worker_waits_as_the_delay_server_did(
    channels_1: Any, channel_layer: ChannelLayer, autojump_clock: MockClock
) -> None:
    class Reader(AsyncJsonWebsocketConsumer):
        groups = ["ada"]

    started = trio.current_time()
    async with trio.open_nursery() as nursery, WebsocketCommunicator(Reader.as_asgi(), "/") as ws:
        await ws.connect()
        nursery.start_soon(Worker(channels_1.application, ["reminders"], channel_layer).run)
        await channel_layer.send("reminders", {"type": "reminder.send", "delay": 300, "group": "ada", "text": "tea"})
        assert await ws.receive_from(timeout=400) == "tea"
        assert trio.current_time() - started >= 300
        nursery.cancel_scope.cancel()


# -- nurseries --------------------------------------------------------------------------------------------------------


async def test_files_are_read_side_by_side(load: Load, tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "22")):
        (tmp_path / name).write_text(text)
    nurseries = load("nurseries")
    assert await nurseries.sizes([tmp_path / "a", tmp_path / "b"]) == {"a": 1, "b": 2}
    missing = False
    try:
        await nurseries.sizes([tmp_path / "a", tmp_path / "none"])
    except* FileNotFoundError:
        missing = True
    assert missing


async def test_view_counts_side_by_side(load: Load, ada: User) -> None:
    response = await load("nurseries").dashboard(RequestFactory().get("/"))
    assert json.loads(response.content) == {"active": 1, "inactive": 0}


async def test_task_of_a_connection_ends_with_it(load: Load, ada: User) -> None:
    consumers: list[Any] = []

    class Poll(load("nurseries").Poll):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            consumers.append(self)

    async with WebsocketCommunicator(Poll.as_asgi(), "/") as ws:
        await ws.connect()
        assert await ws.receive_json_from() == {"users": 1}
        await ws.disconnect()
    assert consumers[0].asking is False

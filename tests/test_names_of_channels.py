"""Names that code for Channels imports or calls: each exists, or the error names its replacement."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import pytest
from django.test import LiveServerTestCase
from django.urls import path

import trio_channels
from trio_channels.apps import TrioChannelsConfig
from trio_channels.consumer import get_handler_name
from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import (
    InvalidNameError,
    MessageTooLarge,
    RequestAborted,
    RequestTimeout,
    TrioChannelsError,
)
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import DEFAULT_CHANNEL_LAYER, BaseChannelLayer, InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.management.commands.runworker import Command
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import OriginValidator
from trio_channels.sync import sync_to_async
from trio_channels.testing import ChannelsLiveServerTestCase, WebsocketCommunicator

LAYER = InMemoryChannelLayer()


@pytest.mark.parametrize("name", ["a", "a!b", "a-b_c.d!", "a" * 99])
def test_valid_channel_names(name: str) -> None:
    assert LAYER.require_valid_channel_name(name) is True
    assert LAYER.require_valid_channel_name(name, receive=True) is True
    assert LAYER.match_type_and_length(name)
    assert LAYER.valid_channel_names([name, "other"])
    with pytest.deprecated_call(match=r"call require_valid_channel_name\(\)"):
        assert LAYER.valid_channel_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a!b!c", "a" * 100, None, b"a", "ä"])
def test_names_that_are_refused(name: Any) -> None:
    for call in (LAYER.require_valid_channel_name, LAYER.require_valid_group_name):
        with pytest.raises(InvalidNameError, match=r"name must be a str of 1 to 99 ASCII letters") as error:
            call(name)
        assert isinstance(error.value, TypeError)  # as in Channels
    with pytest.raises(InvalidNameError):
        LAYER.valid_channel_names(["a", name])


def test_group_names() -> None:
    assert LAYER.require_valid_group_name("room.1") is True
    with pytest.deprecated_call(match=r"call require_valid_group_name\(\)"):
        assert LAYER.valid_group_name("room.1")
    with pytest.raises(InvalidNameError):
        LAYER.require_valid_group_name("a!b")
    assert LAYER.invalid_name_error.format("Group").startswith("Group name must be a str")
    assert not LAYER.match_type_and_length("a" * LAYER.MAX_NAME_LENGTH)


@pytest.mark.parametrize(("name", "expected"), [("a!b", "a!"), ("a!", "a!"), ("a", "a")])
def test_non_local_part_of_a_name(name: str, expected: str) -> None:
    assert LAYER.non_local_name(name) == expected


def test_handler_name_of_a_message() -> None:
    assert get_handler_name({"type": "chat.message"}) == "chat_message"


@pytest.mark.parametrize("message", [{}, {"type": ""}, {"type": None}, {"type": "_private"}, {"type": ".a"}])
def test_message_without_a_handler_name_is_an_error(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^expected a (message with a )?type"):
        get_handler_name(message)


class Async(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.base_send({"type": "websocket.accept"})
        await self.base_send({"type": "websocket.send", "text": "base"})

    def send(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("base_send() must not call send()")


class Sync(WebsocketConsumer):
    def connect(self) -> None:
        self.base_send({"type": "websocket.accept"})
        self.base_send({"type": "websocket.send", "text": "base"})

    def send(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("base_send() must not call send()")


@pytest.mark.parametrize("consumer", [Async, Sync])
async def test_base_send_goes_past_send(consumer: Any) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        assert await client.receive_from() == "base"


@pytest.mark.parametrize("decorate", [sync_to_async, database_sync_to_async])
async def test_decorator_takes_thread_sensitive(decorate: Any) -> None:
    @decorate(thread_sensitive=True)  # type: ignore[untyped-decorator]
    def one() -> int:
        return 1

    @decorate()  # type: ignore[untyped-decorator]
    def two() -> int:
        return 2

    assert [await one(), await two(), await decorate(int, thread_sensitive=False)(3)] == [1, 2, 3]


def test_executor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"runs on the threads of the pool, whose number is WORKER_THREADS"):
        sync_to_async(int, executor="mine")  # type: ignore[call-overload]


def test_alias_of_the_default_layer() -> None:
    assert trio_channels.DEFAULT_CHANNEL_LAYER == DEFAULT_CHANNEL_LAYER == "default"


@pytest.mark.parametrize("name", ["await_many_dispatch", "name_that_thing"])
def test_import_error_says_what_replaces_a_name(name: str) -> None:
    utils = importlib.import_module("trio_channels.utils")
    with pytest.raises(ImportError, match=rf"^trio_channels\.utils has no {name}: (start|call) "):
        getattr(utils, name)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        utils.other  # noqa: B018


async def application(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("router", "key"), [(ProtocolTypeRouter, "websocket"), (ProtocolTypeRouter, "http"), (ChannelNameRouter, "jobs")]
)
def test_router_shows_its_application_mapping(router: Any, key: str) -> None:
    assert router({key: application}).application_mapping[key] is application


def test_validator_shows_its_allowed_origins() -> None:
    assert list(OriginValidator(application, ["https://example.org"]).allowed_origins) == ["https://example.org"]


def test_base_class_of_layers_has_two_names() -> None:
    assert BaseChannelLayer is ChannelLayer


@pytest.mark.parametrize("error", [RequestAborted, RequestTimeout, MessageTooLarge])
def test_exceptions_of_channels_are_there(error: type[Exception]) -> None:
    assert issubclass(error, TrioChannelsError)


def test_runworker_adds_its_arguments() -> None:
    parser = argparse.ArgumentParser()
    Command().add_arguments(parser)
    assert parser.parse_args(["jobs"]).channels == ["jobs"]


def test_application_of_the_project_has_a_name() -> None:
    assert (TrioChannelsConfig.name, TrioChannelsConfig.verbose_name) == ("trio_channels", "trio-channels")


@pytest.mark.parametrize("hook", ["setUpClass", "tearDownClass"])
def test_live_server_begins_and_ends_as_djangos(hook: str) -> None:
    assert getattr(ChannelsLiveServerTestCase, hook).__func__ is getattr(LiveServerTestCase, hook).__func__


async def answers(scope: Any, receive: Any, send: Any) -> str:
    return "answer"


@pytest.mark.parametrize(
    "router",
    [
        ProtocolTypeRouter({"http": answers}),
        URLRouter([path("", answers)]),  # type: ignore[arg-type, list-item]
        URLRouter([path("", URLRouter([path("", answers)]))]),  # type: ignore[arg-type, list-item]
        ChannelNameRouter({"jobs": answers}),
    ],
    ids=lambda router: type(router).__name__,
)
async def test_router_returns_what_its_application_returns(router: Any) -> None:
    assert await router({"type": "http", "path": "/", "channel": "jobs"}, None, None) == "answer"

"""Methods with a wrong name, which nothing calls: a log line says which name was expected."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from trio_channels.testing import WebsocketCommunicator


async def method(self: Any, *args: Any) -> None:
    pass


async def connect(self: Any) -> None:
    await self.accept()


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (AsyncWebsocketConsumer, "receive(self, text_data=None, bytes_data=None)"),
        (AsyncJsonWebsocketConsumer, "receive_json(self, content)"),
        (WebsocketConsumer, "receive(self, text_data=None, bytes_data=None)"),
        (JsonWebsocketConsumer, "receive_json(self, content)"),
    ],
)
async def test_ignored_messages_of_clients_are_logged_once(
    base: type[Any], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    chat = type("Chat", (base,), {"recieve": plain})
    for _connection in range(2):
        async with WebsocketCommunicator(chat.as_asgi(), "/") as client:
            await client.connect()
            await client.send_to("{}")
            await client.send_to("{}")
            await client.disconnect()
    assert caplog.messages == [
        f"Chat ignores the messages of its clients, as it has no method {expected} (logged once)"
    ]
    assert caplog.records[0].name == "trio_channels.consumer"


def plain(self: Any) -> None:
    pass


async def test_method_that_calls_super_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    class Chat(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await super().receive_json(content)
            await self.send_json(content)

    async with WebsocketCommunicator(Chat.as_asgi(), "/") as client:
        await client.connect()
        await client.send_json_to(1)
        assert await client.receive_json_from() == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("conect", "connect"),
        ("conenct", "connect"),
        ("on_connect", "connect"),
        ("disconect", "disconnect"),
        ("on_disconnect", "disconnect"),
    ],
)
def test_misspelt_method_is_named(name: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    mixin = type("Mixin", (), {name: method})
    type("Chat", (mixin, AsyncWebsocketConsumer), {})
    assert caplog.messages == [f"Chat has a method {name}, and none called {meant}: is it misspelt?"]


@pytest.mark.parametrize("name", ["connected", "reconnect", "chat_message", "connection", "disconnected", "collect"])
def test_another_word_is_not_taken_for_one(name: str, caplog: pytest.LogCaptureFixture) -> None:
    type("Chat", (AsyncWebsocketConsumer,), {name: method})
    assert not caplog.records


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, AsyncHttpConsumer])
def test_no_mistake_if_the_class_has_both(base: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    chat = type("Chat", (base,), {"connect": connect, "conect": method, "disconnect": method, "on_disconnect": method})
    type("Kitchen", (chat,), {"on_connect": method})
    assert not caplog.records


def test_requests_have_no_connect(caplog: pytest.LogCaptureFixture) -> None:
    type("Chat", (AsyncHttpConsumer,), {"on_connect": method, "on_disconnect": method})
    assert [message.split()[4].rstrip(",") for message in caplog.messages] == ["on_disconnect"]

"""Mistakes in a consumer class that are named: a forgotten ``async``, and groups that are no list."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from trio_channels._concurrency.exception_groups import leaves
from trio_channels.consumer import AsyncConsumer
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.testing import ScriptedConnection

HTTP = {"type": "http", "method": "GET", "path": "/", "headers": []}
REQUEST = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]


class AcceptsAndEnds(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()


class Json(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json(content)


class Answers(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, b"")


def plain(*_args: Any, **_kwargs: Any) -> Any:
    """A plain method in the place of an async one."""


async def generator(*_args: Any, **_kwargs: Any) -> AsyncIterator[None]:
    yield


def forgets_to_return(method: Callable[..., Any]) -> Any:
    @functools.wraps(method)
    def wrapper(self: Any, event: Any) -> None:
        method(self, event).close()

    return wrapper


@forgets_to_return
async def websocket_connect(self: Any, event: Any) -> None:
    """A handler whose decorator returns nothing."""


def named(name: str, function: Callable[..., Any] = plain) -> Any:
    @functools.wraps(function)
    def method(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    method.__name__ = name
    return method


@pytest.mark.parametrize(
    ("base", "name", "kind"),
    [
        (AsyncWebsocketConsumer, "connect", "websocket"),
        (AcceptsAndEnds, "receive", "websocket"),
        (AcceptsAndEnds, "disconnect", "websocket"),
        (AsyncWebsocketConsumer, "accept", "websocket"),
        (Json, "receive", "websocket"),
        (Json, "receive_json", "websocket"),
        (Json, "decode_json", "websocket"),
        (Json, "encode_json", "websocket"),
        (Answers, "handle", "http"),
        (Answers, "disconnect", "http"),
    ],
)
@pytest.mark.parametrize(("function", "got"), [(plain, "None"), (generator, "a value of the type async_generator")])
async def test_forgotten_async_names_the_method(
    base: type[AsyncConsumer], name: str, kind: str, function: Callable[..., Any], got: str
) -> None:
    consumer = type("Chat", (base,), {name: named(name, function)})
    wanted = rf"^Chat\.{name}\(\) must return an awaitable; it has returned {got}\. Write 'async def {name}'"
    connection = ScriptedConnection(HTTP, REQUEST) if kind == "http" else ScriptedConnection.websocket('"text"')
    with pytest.raises(ConfigurationError, match=wanted):
        await connection.run(consumer.as_asgi())


async def test_plain_dispatch_is_named_for_each_event() -> None:
    consumer = type("Chat", (AsyncWebsocketConsumer,), {"dispatch": named("dispatch")})
    with pytest.raises(ExceptionGroup) as caught:  # one error of the connect, one of the disconnect
        await ScriptedConnection.websocket().run(consumer.as_asgi())
    assert {str(error).partition(";")[0] for error in leaves(caught.value)} == {
        "Chat.dispatch() must return an awaitable"
    }


async def test_decorator_that_returns_nothing_is_named() -> None:
    consumer = type("Chat", (AsyncConsumer,), {"websocket_connect": websocket_connect})
    with pytest.raises(ConfigurationError, match=r"^Chat\.websocket_connect\(\) must return an awaitable"):
        await ScriptedConnection.websocket().run(consumer.as_asgi())


async def test_plain_method_may_return_an_awaitable() -> None:
    received: list[str | None] = []

    class Chat(AsyncWebsocketConsumer):
        def connect(self) -> Any:
            return self.accept()

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> Any:
            received.append(text_data)
            return self.accept_nothing()

        async def accept_nothing(self) -> None: ...

    connection = ScriptedConnection.websocket("hello")
    assert [message["type"] for message in await connection.run(Chat.as_asgi())] == ["websocket.accept"]
    assert received == ["hello"]


def names() -> Iterator[str]:
    yield "lobby"


@pytest.mark.parametrize("function", [plain, generator])
@pytest.mark.parametrize(
    ("base", "name"),
    [
        (AsyncWebsocketConsumer, "websocket_connect"),
        (AsyncWebsocketConsumer, "websocket_receive"),
        (Json, "websocket_disconnect"),
        (AsyncHttpConsumer, "http_request"),
        (AsyncHttpConsumer, "http_disconnect"),
    ],
)
def test_plain_handler_of_a_servers_event_is_refused(base: Any, name: str, function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Chat\.{name} must be async.* write 'async def {name}'"):
        type("Chat", (base,), {name: named(name, function)})


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
@pytest.mark.parametrize("groups", ["lobby", "", b"lobby", 5, pytest.param(names(), id="iterator")])
async def test_groups_that_are_no_list_are_refused(base: Any, groups: Any) -> None:
    wanted = r"^Chat\.groups must be a list of names, such as \['(lobby)?'\]; got "
    with pytest.raises(ConfigurationError, match=wanted):
        type("Chat", (base,), {"groups": groups})
    of_each = type("Chat", (base,), {"groups": property(lambda self: groups)})
    with pytest.raises(ConfigurationError, match=wanted):
        await ScriptedConnection.websocket(code=None).run(of_each.as_asgi())


def test_other_consumers_may_call_anything_groups() -> None:
    assert type("Chat", (AsyncConsumer,), {"groups": "lobby"}).groups == "lobby"  # type: ignore[attr-defined]

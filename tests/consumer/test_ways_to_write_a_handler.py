"""Every way to write a handler that Channels calls, and that a message reaches nothing else of a consumer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from asgiref.sync import sync_to_async as asgirefs_sync_to_async

from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync
from trio_channels.testing import WebsocketCommunicator


class Descriptor:
    """As the decorators of packages are: an object with an async ``__call__`` that binds itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    async def __call__(self, event: Any, consumer: Any = None) -> None:
        await self.function(consumer, event)

    def __get__(self, consumer: Any, owner: type) -> Any:
        return self if consumer is None else functools.partial(self.function, consumer)


class NotCallable:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, consumer: Any, owner: type) -> Any:
        return functools.partial(self.function, consumer)


def without_wraps(function: Callable[..., Any]) -> Any:
    def wrapper(self: Any, event: Any) -> Any:
        return function(self, event)

    return wrapper


class Ways(AsyncWebsocketConsumer):
    groups = ("ways",)
    reached: ClassVar[list[str]] = []

    async def plain(self, event: Any) -> None:
        await self.send("plain")

    @Descriptor
    async def descriptor(self, event: Any) -> None:
        await self.send("descriptor")

    @NotCallable
    async def not_callable(self, event: Any) -> None:
        await self.send("not_callable")

    @without_wraps
    async def plain_wrapper(self, event: Any) -> None:
        await self.send("plain_wrapper")

    async def _tell(self, text: str, event: Any) -> None:
        await self.send(text)

    partial_method = functools.partialmethod(_tell, "partial_method")

    @asgirefs_sync_to_async
    def asgiref(self, event: Any) -> None:
        async_to_sync(self.send)("asgiref")

    @database_sync_to_async
    def database(self, event: Any) -> None:
        async_to_sync(self.send)("database")

    def returns_coroutine(self, event: Any) -> Any:
        return self.send("returns_coroutine")

    a_lambda = lambda self, event: self.send("a_lambda")  # noqa: E731

    async def connect(self) -> None:
        self.set_in_connect = lambda event: self.send("set_in_connect")
        await self.accept()

    def __getattr__(self, name: str) -> Any:
        if name == "dynamic":
            return lambda event: self.send("dynamic")
        raise AttributeError(name)

    # No handlers.
    is_ready = property(lambda self: self.reached.append("is_ready"))
    serializer = dict

    @classmethod
    async def of_the_class(cls, event: Any) -> None:
        cls.reached.append("of_the_class")

    @staticmethod
    async def of_no_instance(event: Any) -> None:
        Ways.reached.append("of_no_instance")

    async def two_arguments(self, event: Any, more: Any) -> None:
        self.reached.append("two_arguments")

    async def close(self, code: Any = None, reason: Any = None) -> None:
        self.reached.append("close")
        await super().close(code, reason)


async def added_later(self: Any, event: Any) -> None:
    await self.send("added_later")


Ways.added_later = added_later  # type: ignore[attr-defined]

WAYS = (
    *("plain", "descriptor", "not_callable", "plain_wrapper", "partial_method", "asgiref", "database"),
    *("returns_coroutine", "a_lambda", "set_in_connect", "dynamic", "added_later"),
)


@pytest.fixture
def reached() -> list[str]:
    Ways.reached.clear()
    return Ways.reached


async def tell(*kinds: Any) -> None:
    for kind in kinds:
        await get_channel_layer().group_send("ways", {"type": kind})


async def test_each_way_is_called() -> None:
    async with WebsocketCommunicator(Ways.as_asgi(), "/") as client:
        await client.connect()
        await tell(*WAYS)
        assert [await client.receive_from() for _ in WAYS] == list(WAYS)


async def test_no_message_reaches_anything_else(reached: list[str], caplog: pytest.LogCaptureFixture) -> None:
    kinds = (
        *(
            "of.the_class",
            "of.no_instance",
            "is_ready",
            "serializer",
            "two_arguments",
            "close",
            "accept",
            "send",
            "dispatch",
            "start_soon",
            "as_asgi",
        ),
        *("_tell", "__init__", "scope", "channel_layer", "missing", "", None, 5, "websocket.receive", "http.request"),
        *("websocket.disconnect", "connect", "a\nb"),
    )
    async with WebsocketCommunicator(Ways.as_asgi(), "/") as client:
        await client.connect()
        await tell(*kinds, "plain")
        assert await client.receive_from() == "plain"
    assert reached == []
    assert "ignores a channel layer message of type 'of.the_class'" in caplog.text


async def told(consumer: Any, kind: str) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await tell(kind)
        await client.wait()


def one(*_arguments: Any) -> int:
    return 1


# Python 3.13 warns that a partial in a class will be a method.
@pytest.mark.filterwarnings("ignore:functools.partial will be a method:FutureWarning")
@pytest.mark.parametrize("helper", [one, lambda self, event: None, functools.partial(one), NotCallable(one)])
async def test_handler_that_is_not_async_is_named(helper: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must return an awaitable"):
        await told(type("Chat", (Ways,), {"helper": helper}), "helper")


class SyncWays(WebsocketConsumer):
    groups = ("ways",)

    def plain(self, event: Any) -> None:
        self.send("plain")

    @NotCallable
    def descriptor(self, event: Any) -> None:
        self.send("descriptor")

    @without_wraps
    def plain_wrapper(self, event: Any) -> None:
        self.send("plain_wrapper")

    def connect(self) -> None:
        self.set_in_connect = lambda event: self.send("set_in_connect")
        self.accept()

    @async_to_sync
    async def async_inside(self, event: Any) -> None:
        await get_channel_layer().send(self.channel_name, {"type": "called_inside"})

    def called_inside(self, event: Any) -> None:
        self.send("async_inside")

    async def coroutine(self, event: Any) -> None: ...

    def returns_coroutine(self, event: Any) -> Any:
        return self.coroutine(event)


SYNC_WAYS = ("plain", "descriptor", "plain_wrapper", "set_in_connect", "async_inside")


async def test_each_way_is_called_in_a_sync_consumer() -> None:
    async with WebsocketCommunicator(SyncWays.as_asgi(), "/") as client:
        await client.connect()
        await tell(*SYNC_WAYS)
        assert [await client.receive_from() for _ in SYNC_WAYS] == list(SYNC_WAYS)


async def test_async_handler_of_a_sync_consumer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with WebsocketCommunicator(SyncWays.as_asgi(), "/") as client:
        await client.connect()
        await tell("coroutine", "plain")
        assert await client.receive_from() == "plain"
    assert (
        "SyncWays.coroutine is not a handler: a handler is a method that takes one argument, is not async"
        in caplog.text
    )


async def test_coroutine_of_a_sync_handler_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"^SyncWays\.returns_coroutine\(\) has returned a coroutine"):
        await told(SyncWays, "returns_coroutine")

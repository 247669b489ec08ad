"""Which methods are handlers, and that nothing else of a class can be reached by a message."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.consumer.handlers import Handlers, handler_name, handles_client_event, why_unhandled


def find_handlers(cls: type, framework: tuple[type, ...], *, must_be_async: bool) -> tuple[Any, Any]:
    handlers = Handlers(cls, framework, is_async=must_be_async)
    return handlers.methods, handlers.for_layer


class Framework:
    """Stands for the framework's base classes."""

    @handles_client_event
    async def websocket_receive(self, event: Any) -> None: ...

    async def close(self, code: int = 1000) -> None: ...

    def plain(self, event: Any) -> None: ...


class Target:
    def method(self, event: Any) -> None: ...

    def __call__(self, *args: Any) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class MethodObject:
    """A decorator that is a class, as asgiref's are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance: object, owner: type) -> Any:
        return functools.partial(self.function, instance)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Consumer(Framework):
    async def chat_message(self, event: Any) -> None: ...

    async def with_default(self, event: Any, more: int = 0) -> None: ...

    @wrapped
    async def decorated(self, event: Any) -> None: ...

    @MethodObject
    async def object_of_a_decorator(self, event: Any) -> None: ...

    def plain_function(self, event: Any) -> Any:
        """May return an awaitable."""

    async def generator(self, event: Any) -> AsyncIterator[int]:  # an error when it is called
        yield 1

    @asynccontextmanager
    async def context(self, event: Any) -> AsyncIterator[None]:
        yield

    # Everything from here on is no method that is a handler.

    async def close(self, code: int = 1000) -> None: ...

    async def _private(self, event: Any) -> None: ...

    async def no_argument(self) -> None: ...

    async def two_arguments(self, event: Any, other: Any) -> None: ...

    async def keyword_only(self, *, event: Any) -> None: ...

    @staticmethod
    async def static(event: Any) -> None: ...

    @classmethod
    async def of_class(cls, event: Any) -> None: ...

    @property
    def prop(self) -> Any: ...

    text = "text"
    nested = Target
    partial = functools.partial(print)
    instance = Target()
    bound = Target().method
    builtin = time.sleep


METHODS = {
    *("chat_message", "with_default", "decorated", "object_of_a_decorator"),
    *("plain_function", "generator", "context"),
}


def test_handlers_of_an_async_consumer() -> None:
    from_client, from_layer = find_handlers(Consumer, (Framework,), must_be_async=True)
    assert from_layer == METHODS
    assert from_client == from_layer | {"websocket_receive"}


def test_layer_cannot_forge_client_events() -> None:
    class Overriding(Framework):
        async def websocket_receive(self, event: Any) -> None: ...

    from_client, from_layer = find_handlers(Overriding, (Framework,), must_be_async=True)
    assert from_client == {"websocket_receive"}
    assert from_layer == set()


def test_layer_cannot_forge_asgi_events_without_a_handler() -> None:
    class Bare:
        async def websocket_receive(self, event: Any) -> None: ...

        async def http_disconnect(self, event: Any) -> None: ...

        async def chat_message(self, event: Any) -> None: ...

    from_client, from_layer = find_handlers(Bare, (), must_be_async=True)
    assert from_client == {"websocket_receive", "http_disconnect", "chat_message"}
    assert from_layer == {"chat_message"}


def test_handlers_of_a_sync_consumer_are_plain_methods() -> None:
    class Sync(Framework):
        def chat_message(self, event: Any) -> None: ...

        async def coroutine(self, event: Any) -> None: ...

        def plain(self, event: Any) -> None:
            """The framework's own name stays reserved."""

    assert find_handlers(Sync, (Framework,), must_be_async=False) == ({"chat_message"}, {"chat_message"})


def test_what_the_framework_marks_may_return_what_is_to_be_awaited() -> None:
    class Returns:
        @handles_client_event
        def websocket_receive(self, event: Any) -> Any: ...

    assert find_handlers(Returns, (Returns,), must_be_async=True)[0] == {"websocket_receive"}
    assert find_handlers(Returns, (Returns,), must_be_async=False)[0] == {"websocket_receive"}


def test_inherited_handlers_count() -> None:
    class Mixin:
        async def from_mixin(self, event: Any) -> None: ...

    class Child(Mixin, Consumer): ...

    assert {"from_mixin", "chat_message"} <= find_handlers(Child, (Framework,), must_be_async=True)[1]


def test_name_set_to_none_is_a_handler_no_more() -> None:
    class Child(Consumer):
        chat_message = None  # type: ignore[assignment]

    assert "chat_message" not in find_handlers(Child, (Framework,), must_be_async=True)[1]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("chat.message", "chat_message"), ("a.b.c", "a_b_c"), ("a_b", "a_b"), ("", ""), (None, ""), (5, ""), (["a"], "")],
)
def test_dot_becomes_an_underscore(kind: object, name: str) -> None:
    assert handler_name(kind) == name


@given(st.one_of(st.text(), st.integers(), st.none(), st.sampled_from(["close", "_private", "__class__", ".a"])))
def test_no_type_reaches_what_is_no_handler(kind: object) -> None:
    handlers = find_handlers(Consumer, (Framework,), must_be_async=True)[1]
    if handler_name(kind) not in handlers:
        assert why_unhandled(Consumer, kind)
    else:
        assert handler_name(kind) in METHODS


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("chat.other", "Consumer has no method chat_other(self, event)"),
        ("close", "Consumer.close is not a handler"),
        ("two.arguments", "Consumer.two_arguments is not a handler"),
        ("_private", "expected a type such as 'chat.message'; got '_private'"),
        ("", "expected a type"),
        (None, "got None"),
        ("a\nFORGED", r"no method 'a\nFORGED'(self, event)"),
    ],
)
def test_reason_says_what_is_lacking(kind: object, why: str) -> None:
    assert why in why_unhandled(Consumer, kind)


def test_representation_lists_the_methods() -> None:
    class Bare:
        async def chat_message(self, event: Any) -> None: ...

    assert repr(Handlers(Bare, (), is_async=True)) == "<Handlers of Bare: chat_message>"

"""Classes that cannot work are refused when they are made, or routed to."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from trio_channels.exceptions import ConfigurationError
from trio_channels.topics import Topic, TopicSocket, event
from trio_channels.topics.payloads import InvalidPayload, PayloadType


class Custom:
    pass


async def good(self: Any, payload: Any) -> None: ...


async def none(self: Any) -> None: ...


async def two(self: Any, first: Any, second: Any) -> None: ...


async def custom(self: Any, payload: Custom) -> None: ...


async def unknown(self: Any, payload: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def mixed(self: Any, payload: msgspec.Raw | Custom | int | str) -> None: ...


async def stream(self: Any, payload: Any) -> AsyncIterator[int]:
    yield 1


def generator(self: Any, payload: Any) -> Iterator[int]:
    yield 1


def marked(function: Any, name: str = "a") -> Any:
    @functools.wraps(function)
    def copy(*args: Any) -> Any:
        return function(*args)

    return event(name)(copy)


BASE = type("Base", (Topic,), {"handler": marked(good, "a.b")})

#: The attributes of a class, its base, and a part of the error.
CLASSES: dict[str, tuple[dict[str, Any], type, str]] = {
    "pattern of another type": ({"pattern": 1}, Topic, r"Bad.pattern must be a str such as .*; got 1"),
    "empty pattern": ({"pattern": ""}, Topic, "got ''"),
    "pattern of heartbeats": ({"pattern": "phoenix"}, Topic, "not 'phoenix', the topic of heartbeats"),
    "converter that does not exist": ({"pattern": "a:<nope:b>"}, Topic, "invalid converter 'nope'"),
    "name twice in a pattern": ({"pattern": "a:<b>:<b>"}, Topic, "redefinition of group name 'b'"),
    "space in a pattern": ({"pattern": "a:< b>"}, Topic, "whitespace"),
    "two handlers": ({"one": marked(good), "two": marked(good)}, Topic, "'a' has two handlers, one and two"),
    "handler twice by inheritance": ({"one": marked(good, "a.b")}, BASE, "two handlers, handler and one"),
    "override without a mark": ({"handler": good}, BASE, r"overrides the handler of 'a.b' in Base: write @event"),
    "name of the framework": ({"push": marked(good)}, Topic, "cannot handle 'a': Topic.push is a method"),
    "mark on join": ({"join": marked(good)}, Topic, "Topic.join is a method of every topic"),
    "mark on handle_out": ({"handle_out": marked(two)}, Topic, "Topic.handle_out is a method"),
    "handler without a payload": (
        {"one": marked(none)},
        Topic,
        r"Bad.one must take \(self, payload\); it takes \(self",
    ),
    "handler with two payloads": ({"one": marked(two)}, Topic, r"must take \(self, payload\)"),
    "plain generator": ({"one": marked(generator)}, Topic, "Bad.one is a plain generator"),
    "static method": ({"one": staticmethod(marked(good))}, Topic, "Bad.one must be a method; got staticmethod"),
    "payload of a class": (
        {"one": marked(custom)},
        Topic,
        "must be a dict, a msgspec.Struct, .* that msgspec does not",
    ),
    "payload of an impossible union": ({"one": marked(mixed)}, Topic, "another type that msgspec decodes; got"),
    "annotation that is not there": ({"one": marked(unknown)}, Topic, "name 'NoSuchName' is not defined. Define or"),
    "join that streams": ({"join": stream}, Topic, "Bad.join is an async generator"),
    "join without params": ({"join": none}, Topic, r"Bad.join must take \(self, payload\)"),
    "leave with an argument": ({"leave": good}, Topic, r"Bad.leave must take \(self\)"),
    "leave that streams": ({"leave": lambda self: (yield 1)}, Topic, "Bad.leave is a plain generator"),
    "handle_out without an event": ({"handle_out": good}, Topic, r"must take \(self, event, payload\)"),
    "handle_out that is no method": ({"handle_out": 1}, Topic, "Bad.handle_out must be a method; got int"),
    "no pending pushes": ({"pending_pushes": 0}, Topic, "pending_pushes must be None or an int of at least 1; got 0"),
    "negative rate": ({"pushes_per_second": -1}, Topic, "pushes_per_second must be None or an int of at least 0"),
    "handlers side by side": ({"handler_concurrency": 2}, TopicSocket, "Bad.handler_concurrency must be 1"),
}


@pytest.mark.parametrize(("attributes", "base", "says"), CLASSES.values(), ids=CLASSES)
def test_class_is_refused(attributes: dict[str, Any], base: type, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        type("Bad", (base,), attributes)


@pytest.mark.parametrize("name", ["", "phx_join", None, good])
def test_name_of_an_event_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@event expects a name such as 'message.new'"):
        event(name)


def topic(pattern: str | None, name: str = "One") -> type[Topic]:
    return type(name, (Topic,), {} if pattern is None else {"pattern": pattern})


@pytest.mark.parametrize(
    ("topics", "says"),
    [
        (lambda: [topic(None)], "One has no pattern: set one"),
        (lambda: [Topic], "Topic has no pattern"),
        (lambda: [Custom], "must be classes of Topic; got <class"),
        (lambda: ["room"], "must be classes of Topic; got 'room'"),
        (lambda: [topic("a"), topic("a", "Two")], "no topic would reach Two: One, which comes before it"),
        (
            lambda: [topic("a:<slug:b>"), topic("a:<slug:c>", "Two")],
            "all of 'a:<slug:c>' with its pattern 'a:<slug:b>'",
        ),
        (lambda: [topic("a:<b>"), topic("a:<str:c>", "Two")], "Change the order, or one of the patterns"),
        (lambda: [topic("a:<slug:b>"), topic("a:lobby", "Two")], "no topic would reach Two"),
    ],
)
def test_list_of_topics_is_refused(topics: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        TopicSocket.as_asgi(topics=topics())


def test_arguments_that_the_class_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="TopicSocket has no __init__ that takes arguments; got nope"):
        TopicSocket.as_asgi(topics=[], nope=1)


def test_near_patterns_are_no_clash() -> None:
    TopicSocket.as_asgi(topics=[topic("a:lobby"), topic("a:<int:n>"), topic("a:<slug:s>"), topic("a:<slug:s>:x")])


def test_override_with_its_mark_is_the_handler() -> None:
    assert list(type("Good", (BASE,), {"handler": marked(good, "a.b")})._methods.events) == ["a.b"]


def test_handler_may_leave_the_type_open() -> None:
    async def any_arguments(*args: Any) -> None: ...

    methods = type("Good", (Topic,), {"handler": event("a")(any_arguments)})._methods  # type: ignore[attr-defined]
    assert methods.events["a"].payload.decode(b"bytes") == b"bytes"


def test_payload_that_is_no_json_is_invalid() -> None:
    with pytest.raises(InvalidPayload) as raised:
        PayloadType(Any, "Room.handler").decode(msgspec.Raw(b"{"))
    assert raised.value.response["message"].startswith("Expected JSON: ")


def test_place_of_a_key_is_readable() -> None:
    with pytest.raises(InvalidPayload) as raised:
        PayloadType(dict[int, int], "Room.handler").decode(msgspec.Raw(b'{"a": 1}'))
    assert raised.value.response["at"] == "key in $"


async def test_topic_without_a_user_says_what_is_missing() -> None:
    one = topic("a")()
    one.socket = TopicSocket()
    one.socket.scope = {}
    with pytest.raises(ConfigurationError, match="wrap the application in AuthMiddlewareStack"):
        await one.authorize("chat.view_room")


def test_topic_that_has_ended_starts_nothing() -> None:
    from trio_channels.topics.membership import Membership

    membership = object.__new__(Membership)
    membership._nursery, membership._topic = None, None
    with pytest.raises(RuntimeError, match="has no nursery: it has ended"):
        membership.start_soon(good)

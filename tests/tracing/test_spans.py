"""The spans of one process, and how they hang together."""

from __future__ import annotations

import functools
import sys
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import path
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from trio_channels import _tracing, tracing
from trio_channels._threads.database import thread_pool
from trio_channels._threads.lease import Lease
from trio_channels._threads.pool import WorkerPool
from trio_channels.asgi import get_asgi_application
from trio_channels.db import pinned
from trio_channels.exceptions import ConfigurationError, MessageNotEncodable, StopConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.routing import URLRouter
from trio_channels.sync import sync_to_async
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket

from ..redis_server import RedisServer
from .conftest import Spans

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Chat(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "error":
            raise RuntimeError("as asked")
        if text_data == "stop":
            raise StopConsumer
        if text_data == "thread":
            await sync_to_async(remember)()
            await self.send(text_data="done")
            return
        await self.channel_layer.group_send("room", {"type": "room.said", "text": text_data})

    async def room_said(self, event: dict[str, Any]) -> None:
        assert event == {"type": "room.said", "text": event["text"]}
        await self.send(text_data=event["text"])


inside: list[trace.Span] = []


def remember() -> None:
    inside.append(trace.get_current_span())


@asynccontextmanager
async def chatting(layer: Any, headers: Any = ()) -> Any:
    consumer = type("Chat", (Chat,), {"channel_layer": layer})
    router = URLRouter([path("chat/<str:name>/", consumer.as_asgi())])
    async with WebsocketCommunicator(router, "/chat/anna/", headers=list(headers)) as client:
        accepted, _ = await client.connect()
        assert accepted
        yield client


@pytest.fixture(params=["memory", "redis"])
async def layer(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield InMemoryChannelLayer()
        return
    redis: RedisServer = request.getfixturevalue("redis_server")
    async with RedisStreamsChannelLayer(hosts=[redis.url], prefix="tracing") as layer:
        yield layer


async def test_broadcasts_handlers_hang_below_its_sender(layer: Any, spans: Spans) -> None:
    async with chatting(layer) as anna, chatting(layer) as bert:
        await anna.send_to(text_data="hello")
        assert await anna.receive_from() == await bert.receive_from() == "hello"
    send = spans.one("group_send room.said")
    handlers = spans.named("room.said")
    assert len(handlers) == 2
    assert {spans.parent(span) for span in handlers} == {"group_send room.said"}
    assert {span.context.trace_id for span in handlers} == {send.context.trace_id}
    assert {span.kind for span in handlers} == {SpanKind.CONSUMER}
    # each is linked to its connection
    connections = {span.context.span_id for span in spans.named("websocket chat/<str:name>/")}
    assert {link.context.span_id for span in handlers for link in span.links} == connections
    assert send.kind == SpanKind.PRODUCER
    assert send.attributes is not None
    assert send.attributes["messaging.destination.name"] == "room"
    assert spans.parent(send) == "websocket.receive"
    assert spans.parent(spans.one("websocket.receive")) == "websocket chat/<str:name>/"


async def test_connection_and_its_handshake_and_end_have_spans(spans: Spans) -> None:
    async with chatting(InMemoryChannelLayer(), headers=[(b"traceparent", TRACEPARENT.encode())]):
        pass
    connection = spans.one("websocket chat/<str:name>/")
    assert connection.parent is not None
    assert trace.format_trace_id(connection.context.trace_id) == TRACEPARENT[3:35]  # the client's
    assert connection.kind == SpanKind.SERVER
    assert spans.parent(spans.one("websocket.connect")) == connection.name
    assert spans.parent(spans.one("websocket.disconnect")) == connection.name
    assert not any("anna" in str(span.to_json()) for span in spans.all())


async def test_connection_hangs_below_middlewares_span(spans: Spans) -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        with spans.provider.get_tracer("middleware").start_as_current_span("middleware"):
            await endpoint(scope, receive, send)

    async with WebsocketCommunicator(middleware, "/", headers=[(b"traceparent", TRACEPARENT.encode())]) as client:
        await client.connect()
    assert spans.parent(spans.one("websocket")) == "middleware"
    assert spans.one("websocket").kind == SpanKind.INTERNAL


@pytest.mark.parametrize("header", [b"nonsense", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b""])
async def test_malformed_context_of_a_client_is_ignored(header: bytes, spans: Spans) -> None:
    async with chatting(InMemoryChannelLayer(), headers=[(b"traceparent", header)]):
        pass
    assert spans.one("websocket chat/<str:name>/").parent is None


async def test_error_is_on_the_handler_and_the_connection(spans: Spans) -> None:
    async with chatting(InMemoryChannelLayer()) as client:
        await client.send_to(text_data="error")
        with pytest.raises(RuntimeError, match="as asked"):
            await client.wait()
    for name in ("websocket.receive", "websocket chat/<str:name>/"):
        span = spans.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]
    assert spans.one("websocket.connect").status.status_code is StatusCode.UNSET


async def test_normal_end_is_no_error(spans: Spans) -> None:
    async with chatting(InMemoryChannelLayer()) as client:
        await client.send_to(text_data="stop")
        await client.wait()
    assert {span.status.status_code for span in spans.all()} == {StatusCode.UNSET}


async def test_context_reaches_the_thread(spans: Spans) -> None:
    inside.clear()
    async with chatting(InMemoryChannelLayer()) as client:
        await client.send_to(text_data="thread")
        await client.receive_from()
    hop = spans.one("thread remember")
    assert spans.parent(hop) == "websocket.receive"
    assert inside[0].get_span_context().span_id == hop.context.span_id


async def test_sync_handlers_hop_is_below_its_handler(spans: Spans) -> None:
    class Echo(WebsocketConsumer):
        channel_layer = InMemoryChannelLayer()

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data)

    async with WebsocketCommunicator(Echo.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="hello")
        assert await client.receive_from() == "hello"
    assert {spans.parent(span) for span in spans.all() if span.name.startswith("thread ")} <= {
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    }


@pytest.mark.django_db(transaction=True)
async def test_orm_hop_has_a_span(spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("outside"):
        await User.objects.acount()
        async with pinned():
            await User.objects.acount()
    hops = [span for span in spans.all() if "count" in span.name]
    assert [spans.parent(span) for span in hops] == ["outside", "outside"]  # one for each, inside a lease too


async def test_call_on_a_held_thread_has_one_span(spans: Spans) -> None:
    pool = thread_pool()
    async with pool.lease():
        await pool.run_sync(remember)
    assert spans.names() == ["thread remember"]


def test_missing_hiredis_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio_channels.layers.redis", None)
    tracing.enable()
    try:
        assert hasattr(InMemoryChannelLayer.send, "__wrapped__")
    finally:
        tracing.disable()


async def test_request_that_fails_is_an_error(spans: Spans, settings: Any) -> None:
    def fail(request: Any) -> None:
        raise ValueError("as asked")

    settings.ROOT_URLCONF = (path("fail/", fail),)
    await HttpCommunicator(get_asgi_application(), "GET", "/fail/").get_response()
    span = spans.one("GET fail/")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 500


async def test_handlers_side_by_side_have_spans_of_their_own(spans: Spans) -> None:
    class Parallel(Chat):
        handler_concurrency = 2

    consumer = type("Parallel", (Parallel,), {"channel_layer": InMemoryChannelLayer()})
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="one")
        await client.send_to(text_data="two")
        assert {await client.receive_from(), await client.receive_from()} == {"one", "two"}
    for said in spans.named("room.said"):
        assert spans.parent(said) == "group_send room.said"
    assert len({span.parent.span_id for span in spans.named("room.said") if span.parent}) == 2


async def test_subscriber_can_take_up_the_context(layer: Any, spans: Spans) -> None:
    async with layer.subscribe("room") as events:
        await layer.group_send("room", {"type": "room.said"})
        event = await anext(events)
    sender = trace.get_current_span(tracing.context_of(event)).get_span_context()
    assert sender.span_id == spans.one("group_send room.said").context.span_id
    assert event == {"type": "room.said"}


async def test_context_of_another_message_is_the_current_one(spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("outside") as span:
        assert trace.get_current_span(tracing.context_of({"type": "a"})) is span


async def test_message_that_is_sent_on_carries_its_new_sender(layer: Any, spans: Spans) -> None:
    async with layer.subscribe("one") as one, layer.subscribe("two") as two:
        await layer.group_send("one", {"type": "first"})
        event = await anext(one)
        await layer.group_send("two", {**event, "type": "second"})
        await layer.group_send("two", event)
        second, again = await anext(two), await anext(two)
    senders = [trace.get_current_span(tracing.context_of(each)).get_span_context().span_id for each in (second, again)]
    firsts = spans.named("group_send first")
    assert senders == [spans.one("group_send second").context.span_id, firsts[1].context.span_id]


async def test_failed_send_is_an_error(spans: Spans) -> None:
    with pytest.raises(MessageNotEncodable):
        await InMemoryChannelLayer().group_send("room", object())  # type: ignore[arg-type]
    assert spans.one("group_send None").status.status_code is StatusCode.ERROR


async def test_request_has_a_span_with_its_route(spans: Spans, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.metrics.site"
    application = get_asgi_application()
    for name in ("anna", "nobody"):
        await HttpCommunicator(application, "GET", f"/greet/{name}/").get_response()
    await HttpCommunicator(application, "GET", "/nowhere/").get_response()
    first, second = spans.named("GET greet/<str:name>/")
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["http.response.status_code"] == 200
    assert second.attributes["http.response.status_code"] == 410
    assert first.kind == SpanKind.SERVER
    assert spans.one("GET").attributes["http.response.status_code"] == 404  # type: ignore[index]
    assert "GET greet/<str:name>/" in {spans.parent(span) for span in spans.all() if span.name.startswith("thread ")}


def test_disabled_tracing_leaves_everything_as_it_was(spans: Spans) -> None:
    replaced = [(WorkerPool, "run_sync"), (Lease, "run_sync"), (InMemoryChannelLayer, "send")]
    traced = [getattr(owner, name) for owner, name in replaced]
    tracing.enable(spans.provider)  # twice is as once
    tracing.disable()
    tracing.disable()
    assert _tracing.tracer is None
    assert all(getattr(owner, name) is not before for (owner, name), before in zip(replaced, traced, strict=True))
    assert not any(hasattr(getattr(owner, name), "__wrapped__") for owner, name in replaced)


async def test_disabled_tracing_makes_no_span(spans: Spans) -> None:
    tracing.disable()
    async with chatting(InMemoryChannelLayer()) as client:
        await client.send_to(text_data="hello")
        await client.receive_from()
    assert spans.all() == ()


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trio-channels\[otel\]'"):
        tracing.enable()


@pytest.mark.parametrize(
    ("call", "args", "name"),
    [
        (remember, (), "remember"),
        (functools.partial(remember), (), "remember"),
        (functools.partial(functools.partial(remember)), (), "remember"),
        (type("Callable", (), {"__call__": print})(), (), "call"),
    ],
)
def test_call_has_the_name_of_its_function(call: Any, args: Any, name: str) -> None:
    assert tracing._name_of(call, args) == name

"""Every example of the documentation works."""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import trio
import trio.testing
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models.signals import post_save
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from trio.testing import MockClock

from trio_channels import _conf, _tracing, tracing
from trio_channels._http.handler import DjangoHandler
from trio_channels._metrics import recording
from trio_channels.client import connect
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import ChannelLayer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.sync import sync_to_async
from trio_channels.testing import HttpCommunicator, TopicCommunicator, WebsocketCommunicator
from trio_channels.testing.lifespan import running_lifespan

from ..server.clients import OURS, serving

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs" / "snippets"

#: How an example becomes known to the test that shows it.
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports an example as the reader would, from its own folder, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(SNIPPETS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(SNIPPETS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


def examples_in(module: Any) -> list[Callable[..., Awaitable[None]]]:
    return [test for name, test in vars(module).items() if name.startswith("test_") and iscoroutinefunction(test)]


def test_every_snippet_is_shown_somewhere_in_the_documentation() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)
    snippets = [path for path in SNIPPETS.rglob("*") if path.suffix in (".py", ".html") and path.stat().st_size]
    names = [path.relative_to(SNIPPETS).as_posix() for path in snippets]
    unused = [name for name in names if f"snippets/{name}" not in pages]
    assert unused == []


def test_settings_page_gives_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    table = page[page.index("## `TRIO_CHANNELS`") : page.index("## `CHANNEL_LAYERS`")]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \|", table, re.MULTILINE))
    defaults = {name: setting.default for name, setting in _conf.SETTINGS.items()}
    assert rows == {name: f'"{value}"' if isinstance(value, str) else str(value) for name, value in defaults.items()}


# -- how-to -----------------------------------------------------------------------------------------------------------


async def test_example_tests_of_the_echo_pass(load: Load) -> None:
    examples = examples_in(load("echo_tests"))
    assert len(examples) == 3
    for example in examples:
        await example()


async def test_example_test_of_the_lifespan_passes(load: Load) -> None:
    for example in examples_in(load("prices_life_tests")):
        await example()


async def test_example_test_of_the_clock_passes(load: Load, autojump_clock: MockClock) -> None:
    (example,) = examples_in(load("clock_tests"))
    await example(autojump_clock)


async def test_event_stream_sends_news(load: Load, layer: InMemoryChannelLayer) -> None:
    (example,) = examples_in(load("live_news_tests"))
    await example(layer)


async def test_event_stream_of_a_room_is_for_users(load: Load, layer: InMemoryChannelLayer) -> None:
    class Visitor:
        is_authenticated = False

    for logged_in, status in ((False, 403), (True, 200)):
        Visitor.is_authenticated = logged_in
        client = HttpCommunicator(URLRouter([_room_stream(load)]), "GET", "/rooms/a/events/")
        client.scope["user"] = Visitor()
        async with client:
            assert (await client.get_response_start(30))["status"] == status


def _room_stream(load: Load) -> Any:
    return path("rooms/<slug:room>/events/", load("live_news").RoomEvents.as_asgi())


async def test_example_tests_of_topics_pass(load: Load, channel_layer: ChannelLayer) -> None:
    everybody, refused, typed = examples_in(load("rooms_tests"))
    await everybody(channel_layer)
    await refused()
    await typed(channel_layer)


async def test_client_of_topics_of_the_guide_chats(load: Load, layer: InMemoryChannelLayer) -> None:
    rooms, client = load("rooms"), load("topics_client")
    shown: list[str] = []
    last = trio.Event()

    def show(text: str) -> None:
        shown.append(text)
        if text == "last":
            last.set()

    async with serving(OURS, ProtocolTypeRouter({"websocket": rooms.application})) as server:
        url = f"ws://127.0.0.1:{server.port}/socket"
        async with trio.open_nursery() as nursery, connect(url) as socket, socket.join("room:lobby") as room:
            nursery.start_soon(client.chat, url, "lobby", show)
            while (await anext(room)).payload != {"text": "hello"}:
                pass
            assert await client.say(room, "last")
            await last.wait()
            nursery.cancel_scope.cancel()
    assert shown == ["Lobby", "5 characters", "hello", "last"]


async def test_view_and_command_reach_a_topic(load: Load, layer: InMemoryChannelLayer) -> None:
    rooms, outside = load("rooms"), load("topics_outside")
    request = RequestFactory().post("/", {"text": "of a view"})
    async with TopicCommunicator(rooms.application) as client:
        await client.connect()
        await client.join("room:lobby")
        assert (await sync_to_async(outside.publish)(request)).status_code == 204
        await sync_to_async(call_command)(outside.Command(), "lobby", "of a command")
        said = [await client.receive_event("room:lobby", "message.new") for _ in range(2)]
        await client.disconnect()
    assert [message.payload["text"] for message in said] == ["of a view", "of a command"]


async def test_example_test_of_a_stream_passes(load: Load, channel_layer: ChannelLayer) -> None:
    (example,) = examples_in(load("stream_tests"))
    await example(channel_layer)


async def test_example_tests_of_users_pass(load: Load, trio_db: None, channel_layer: ChannelLayer) -> None:
    module = load("user_tests")
    greeted, announced = examples_in(module)
    await greeted(await sync_to_async(User.objects.create_user)("ada"))
    try:
        await announced(None, channel_layer)
    finally:
        post_save.disconnect(load("outside").announce, sender=User)


async def test_native_chat_sends_what_one_says_to_all(load: Load) -> None:
    chat = load("native").application
    async with WebsocketCommunicator(chat, "/") as first, WebsocketCommunicator(chat, "/") as second:
        await first.connect()
        await second.connect()
        await trio.testing.wait_all_tasks_blocked()
        await first.send_to(text_data="hello")
        assert await first.receive_from() == await second.receive_from() == "hello"


async def test_consumer_shows_who_is_here(load: Load, layer: InMemoryChannelLayer) -> None:
    room = load("who_is_here").Room.as_asgi()
    async with WebsocketCommunicator(room, "/") as first:
        first.scope["user"] = User(pk=1, username="ann")
        await first.connect()
        [meta] = (await first.receive_json_from())["here"]["1"]
        assert meta["name"] == "ann"
        async with WebsocketCommunicator(room, "/") as second:
            second.scope["user"] = User(pk=2, username="bob")
            await second.connect()
            assert sorted((await second.receive_json_from())["here"]) == ["1", "2"]
            assert list((await first.receive_json_from())["joins"]) == ["2"]
            await second.disconnect()
        assert list((await first.receive_json_from())["leaves"]) == ["2"]


async def test_blocks_and_views_show_who_is_here(
    load: Load, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = load("who_is_here_blocks")
    caplog.set_level(logging.INFO, blocks.__name__)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocks.count)
        await trio.testing.wait_all_tasks_blocked()
        async with WebsocketCommunicator(blocks.lobby, "/") as ws:
            await ws.connect()
            await ws.send_to(text_data="hello")
            assert await ws.receive_from() == "hello"
            response = await blocks.who(RequestFactory().get("/"))
            assert list(json.loads(response.content)) == ["a guest"]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert caplog.messages[:2] == ["0 keys are here", "1 keys are here"]


async def test_native_chat_tells_where_messages_are_missing(load: Load) -> None:
    native = load("native")
    async with WebsocketCommunicator(native.application, "/") as ws:
        await ws.connect()
        await trio.testing.wait_all_tasks_blocked()
        await native.layer.flush()
        assert await ws.receive_from() == "some messages are missing here"


async def test_views_of_both_kinds_reach_a_group(load: Load, layer: InMemoryChannelLayer) -> None:
    outside = load("outside")
    request = RequestFactory().post("/", {"text": "hello"})
    async with layer.subscribe("news") as events:
        assert (await sync_to_async(outside.publish)(request)).status_code == 204
        assert await anext(events) == {"type": "news.item", "text": "hello"}
        assert (await outside.publish_async(request)).status_code == 204
        assert await anext(events) == {"type": "news.item", "text": "hello"}


async def test_worker_of_the_guide_does_what_the_view_orders(
    load: Load, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = load("jobs")
    made: list[str] = []
    monkeypatch.setattr(jobs, "make_thumbnail", made.append)
    order = RequestFactory().post("/", {"path": "1.png"})
    with trio.fail_after(30):
        async with layer.subscribe("pages") as events, trio.open_nursery() as nursery:
            nursery.start_soon(jobs.work, layer)
            assert (await sync_to_async(jobs.order_thumbnail)(order)).status_code == 202
            assert await anext(events) == {"type": "thumbnail.made", "path": "1.png"}
            nursery.cancel_scope.cancel()
    assert made == ["1.png"]


@pytest.mark.django_db(transaction=True)
def test_signal_reaches_a_group_from_a_thread_without_trio(load: Load, layer: InMemoryChannelLayer) -> None:
    outside = load("outside")

    listening = Event()
    heard: list[object] = []

    async def listen() -> None:
        with trio.fail_after(20):
            async with layer.subscribe("news") as events:
                listening.set()
                heard.append(await anext(events))

    outside.connect_signals()
    listener = Thread(target=trio.run, args=(listen,))
    listener.start()
    try:
        listening.wait()
        User.objects.create(username="ada")
    finally:
        post_save.disconnect(outside.announce, sender=User)
        listener.join()
    assert heard == [{"type": "news.item", "text": "ada has joined"}]


@pytest.mark.django_db(transaction=True)
async def test_committed_messages_reach_a_group(load: Load, layer: InMemoryChannelLayer) -> None:
    orders = load("orders")
    with trio.fail_after(30):
        async with layer.subscribe("users") as events, orders.run():
            await sync_to_async(orders.register)(RequestFactory().post("/", {"name": "ada"}))
            await orders.register_async(RequestFactory().post("/", {"name": "grace"}))
            assert [(await anext(events))["name"] for _ in range(2)] == ["ada", "grace"]
            await sync_to_async(orders.close_account)(await User.objects.aget(username="ada"))
            assert (await anext(events)) == {"type": "user.left", "name": "ada"}
            await orders.close_account_async(await User.objects.aget(username="grace"))
            assert (await anext(events)) == {"type": "user.left", "name": "grace"}


async def test_long_poll_is_answered_with_the_next_item(load: Load, layer: InMemoryChannelLayer) -> None:
    async with HttpCommunicator(load("long_poll").NextNews.as_asgi(), "GET", "/") as client:
        await client.send_request()
        await trio.testing.wait_all_tasks_blocked()
        await layer.group_send("news", {"type": "news.item", "text": "hello"})
        assert (await client.get_response())["body"] == b"hello"


async def test_async_view_waits_for_the_next_item(load: Load, layer: InMemoryChannelLayer) -> None:
    with override_settings(ROOT_URLCONF=(path("news/", load("async_view").news),)):
        client = HttpCommunicator(DjangoHandler(), "GET", "/news/")
        await client.send_request()
        with trio.fail_after(30):
            while not layer.statistics().groups:
                await trio.lowlevel.checkpoint()
        await layer.group_send("news", {"type": "news.item", "text": "first"})
        assert (await client.get_response(timeout=30))["body"] == b"first"


async def test_long_poll_without_news_is_answered_with_204(
    load: Load, layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    async with HttpCommunicator(load("long_poll").NextNews.as_asgi(), "GET", "/") as client:
        assert (await client.get_response(timeout=30))["status"] == 204


async def test_long_poll_whose_client_leaves_ends_at_once(
    load: Load, layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    async with HttpCommunicator(load("long_poll").NextNews.as_asgi(), "GET", "/") as client:
        await client.send_request()
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        await client.disconnect(timeout=20)
        assert trio.current_time() == started
        assert layer.statistics().memberships == 0


async def test_server_sent_events_come_as_they_are_published(
    load: Load, layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    async with HttpCommunicator(load("server_sent_events").News.as_asgi(), "GET", "/") as client:
        await client.send_request()
        assert (await client.receive_output())["status"] == 200
        assert (await client.receive_output())["body"] == b": welcome\n\n"
        await layer.group_send("news", {"type": "news.item", "text": "hello"})
        assert (await client.receive_output())["body"] == b'data: "hello"\n\n'
        assert (await client.receive_output(timeout=20))["body"] == b": still here\n\n"
        await layer.flush()
        assert (await client.receive_output())["body"] == b"event: gap\ndata: {}\n\n"
        await client.disconnect()


async def test_consumers_and_django_are_routed_to_by_path(
    load: Load, layer: InMemoryChannelLayer, settings: Any
) -> None:
    settings.ROOT_URLCONF = (path("other/", lambda request: HttpResponse("from a view")),)
    application = load("http_routing").application
    async with HttpCommunicator(application, "GET", "/news/") as client:
        await client.send_request()
        assert (await client.receive_output())["headers"][0] == (b"content-type", b"text/event-stream")
    async with HttpCommunicator(application, "GET", "/other/", headers=[(b"host", b"localhost")]) as client:
        assert (await client.get_response())["body"] == b"from a view"


async def test_topics_are_served_over_long_polling(load: Load, channel_layer: ChannelLayer, settings: Any) -> None:
    settings.ROOT_URLCONF = (path("other/", lambda request: HttpResponse("from a view")),)
    application = load("rooms_asgi").application
    headers = [(b"host", b"localhost"), (b"origin", b"http://localhost")]
    async with running_lifespan(application):
        async with HttpCommunicator(application, "GET", "/socket/longpoll?vsn=2.0.0", headers=headers) as client:
            assert json.loads((await client.get_response())["body"])["status"] == 410
        async with HttpCommunicator(application, "GET", "/socket/longpoll?vsn=2.0.0", headers=headers[:1]) as client:
            assert (await client.get_response())["status"] == 403
        async with HttpCommunicator(application, "GET", "/other/", headers=headers) as client:
            assert (await client.get_response())["body"] == b"from a view"


async def test_application_behind_a_proxy_knows_client_and_scheme(load: Load, settings: Any) -> None:
    settings.ROOT_URLCONF = (
        path("who/", lambda request: HttpResponse(f"{request.META['REMOTE_ADDR']} {request.scheme}")),
    )
    application = load("production").application
    async with HttpCommunicator(application, "GET", "/healthz") as client:
        assert (await client.get_response())["status"] == 200
    headers = [(b"host", b"localhost"), (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
    async with HttpCommunicator(application, "GET", "/who/", headers=headers) as client:
        assert (await client.get_response())["body"] == b"203.0.113.9 https"


async def test_prometheus_gets_figures_with_the_token(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recorder", None)
    monkeypatch.setenv("METRICS_TOKEN", "sesame")
    application = load("monitoring").application
    for headers, status in (([], 401), ([(b"authorization", b"Bearer sesame")], 200)):
        async with HttpCommunicator(application, "GET", "/metrics", headers=headers) as client:
            assert (await client.get_response())["status"] == status


def test_traced_application_makes_spans(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", given.append)
    monkeypatch.setattr("opentelemetry.sdk.trace.export.BatchSpanProcessor", SimpleSpanProcessor)
    try:
        assert load("traced").provider is given[0]
        assert _tracing.tracer is not None
    finally:
        tracing.disable()


async def test_reader_of_news_misses_nothing(load: Load) -> None:
    news = InMemoryChannelLayer(history={"news": {"messages": 5, "seconds": 600}})

    class News(load("news").News):  # type: ignore[misc]
        channel_layer = news

    async def answers(since: str | None, count: int) -> list[Any]:
        async with WebsocketCommunicator(News.as_asgi(), "/") as ws:
            await ws.connect()
            await ws.send_json_to({"since": since})
            return [await ws.receive_json_from() for _ in range(count)]

    [begin] = await answers(None, 1)
    position = await news.group_send("news", {"type": "news.item", "text": "It rains"})
    assert begin["recovered"] is False
    assert await answers(begin["position"], 2) == [
        {"recovered": True, "position": begin["position"]},
        {"text": "It rains", "position": position},
    ]
    assert await answers("x", 2) == [{"recovered": False, "position": position}, {"recovered": False}]


async def test_slow_consumer_is_told_how_many_prices_it_missed(load: Load) -> None:
    small = InMemoryChannelLayer(capacity=2)
    gate = trio.Event()

    class Slow(load("prices").Prices):  # type: ignore[misc]
        channel_layer = small

        async def price(self, event: dict[str, Any]) -> None:
            await gate.wait()
            await super().price(event)

    async with WebsocketCommunicator(Slow.as_asgi(), "/") as ws:
        await ws.connect()
        for value in range(6):  # one is in the handler, two fit, three are lost
            await small.group_send("prices", {"type": "price", "value": value})
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
        assert [await ws.receive_json_from() for _ in range(4)] == [
            {"price": 0},
            {"missing": 3},
            {"price": 4},
            {"price": 5},
        ]


async def test_score_goes_to_all_but_its_sender(load: Load) -> None:
    snippet, layer = load("scores"), InMemoryChannelLayer()

    class Scores(snippet.Scores):  # type: ignore[misc,name-defined]
        channel_layer = layer

    application = Scores.as_asgi()
    async with WebsocketCommunicator(application, "/") as first, WebsocketCommunicator(application, "/") as second:
        await first.connect()
        await second.connect()
        await first.send_json_to({"points": 1})
        assert await second.receive_json_from() == {"points": 1}
        await snippet.announce(layer, {"points": 2})
        assert await first.receive_json_from() == {"points": 2}
        assert await second.receive_json_from() == {"points": 2}


@pytest.mark.django_db(transaction=True)
async def test_consumer_changes_the_database_through_a_worker_thread(load: Load) -> None:
    async with WebsocketCommunicator(load("orm").Renames.as_asgi(), "/") as ws:
        await sync_to_async(User.objects.create)(username="ada")
        await ws.connect()
        await ws.send_json_to({"from": "ada", "to": "grace"})
        assert await ws.receive_json_from() == {"renamed": True}
        await ws.send_json_to({"from": "ada", "to": "grace"})
        assert await ws.receive_json_from() == {"renamed": False}

"""A client of an event stream: its events, its reconnection, its rights to read."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import override_settings
from django.urls import path
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels.event_stream import EventStream, stream_position
from trio_channels.exceptions import ChannelLayerUnavailable, ConfigurationError, InvalidChannelLayerError
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import URLRouter
from trio_channels.testing import HttpCommunicator
from trio_channels.topics import broadcast

from .common import BOTH, as_asgi, as_view, kept, told, visit

OPEN, GAP = "stream.open", "stream.gap"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [__file__.rpartition("/")[0] + "/templates"],
    }
]


@pytest.mark.parametrize("serve", BOTH)
async def test_messages_of_all_kinds_are_events(serve: Any) -> None:
    layer = kept()
    with serve(channel_layer=layer, groups=["news", "room:a"]) as application:
        async with visit(application) as client:
            assert told(await client.receive_event()) == (OPEN, {"recovered": False})
            await layer.group_send("news", {"type": "news.item", "text": "one\ntwo"})
            await layer.group_broadcast("news", json=["x"])
            await layer.group_broadcast("news", text="a\r\nb\rc")
            await layer.group_broadcast("news", bytes=b"\0\1")
            await broadcast("room:a", "message.new", {"text": "hello"}, layer=layer)
            await broadcast("room:a", "fragment", "<li>\n</li>", layer=layer)
            got = [await client.receive_event() for _ in range(6)]
            start = await client.get_response_start()
    assert [(each.event, each.data) for each in got] == [
        ("news.item", '{"text":"one\\ntwo"}'),
        ("message", '["x"]'),
        ("message", "a\nb\nc"),
        ("message", '"AAE="'),
        ("message.new", '{"text":"hello"}'),
        ("fragment", "<li>\n</li>"),
    ]
    headers = {name.lower(): value for name, value in start["headers"]}
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-accel-buffering"] == b"no"


@pytest.mark.parametrize("serve", BOTH)
@pytest.mark.parametrize("groups", [["news"], ["news", "room:a", "third"]], ids=["one", "several"])
async def test_client_that_comes_back_misses_nothing(serve: Any, groups: list[str]) -> None:
    layer = kept()

    async def tell(number: int) -> None:
        await layer.group_send("news", {"type": "n", "n": number})
        if len(groups) > 1:
            await broadcast("room:a", "r", {"n": number}, layer=layer)

    expected = len(groups) > 1
    with serve(channel_layer=layer, groups=groups) as application:
        async with visit(application) as client:
            opened = await client.receive_event()
            await tell(1)
            last = [await client.receive_event() for _ in range(1 + expected)][-1].id
        await tell(2)
        await tell(3)
        for where, numbers in ((opened.id, [1, 2, 3, 4]), (last, [2, 3, 4])):
            async with visit(application, last=where) as client:
                assert told(await client.receive_event()) == (OPEN, {"recovered": True})
                if where == opened.id:
                    await tell(4)
                got = [told(await client.receive_event()) for _ in range(len(numbers) * (1 + expected))]
            for name in ("n", "r")[: 1 + expected]:
                assert [payload["n"] for kind, payload in got if kind == name] == numbers


@pytest.mark.parametrize("last", ["garbage", "1-1", "x.y,", ",", "\u20ac", "a" * 5000, "0000000000000000-1"])
@pytest.mark.parametrize("groups", [["news"], ["news", "more"]], ids=["one", "several"])
async def test_other_ids_are_not_recovered(last: str, groups: list[str]) -> None:
    layer = kept()
    await layer.group_send("news", {"type": "n", "n": 1})
    with as_asgi(channel_layer=layer, groups=groups) as application:
        async with visit(application, last=last) as client:
            assert told(await client.receive_event()) == (GAP, {"lost": None, "reason": "not recovered"})
            opened = await client.receive_event()
            assert told(opened) == (OPEN, {"recovered": False})
            await layer.group_send("news", {"type": "n", "n": 2})
            assert told(await client.receive_event()) == ("n", {"n": 2})
        async with visit(application, last=opened.id) as client:
            assert told(await client.receive_event()) == (OPEN, {"recovered": True})


async def test_gap_comes_without_an_id_before_the_new_one() -> None:
    layer = kept()
    with as_asgi(channel_layer=layer, groups=["news"]) as application:
        async with visit(application, last="old") as client:
            gap, opened = await client.receive_event(), await client.receive_event()
    assert gap.event == GAP
    assert gap.id == ""
    assert opened.event == OPEN
    assert opened.id


async def test_without_history_there_are_no_ids() -> None:
    layer = kept()
    with as_asgi(channel_layer=layer, groups=["bare"]) as application:
        async with visit(application) as client:
            assert (await client.receive_event()).id == ""
            for value in ("mine", {"group": "bare", "position": "mine"}):
                await layer.group_send("bare", {"type": "n", "history": value})
                event = await client.receive_event()
                assert event.json() == {"history": value}
    assert event.id == ""


async def test_history_of_one_group_of_two_is_no_promise() -> None:
    layer = kept()
    with as_asgi(channel_layer=layer, groups=["bare", "news"]) as application:
        async with visit(application) as client:
            last = (await client.receive_event()).id
        await layer.group_send("news", {"type": "n"})
        async with visit(application, last=last) as client:
            assert [(await client.receive_event()).event for _ in range(3)] == [GAP, OPEN, "n"]


async def test_layer_without_history_is_not_given_a_position() -> None:
    class Old(InMemoryChannelLayer):
        def subscribe(self, *groups: str) -> Any:  # type: ignore[override]
            return super().subscribe(*groups)

    with as_asgi(channel_layer=Old(), groups=["news"]) as application:
        async with visit(application) as client:
            assert told(await client.receive_event()) == (OPEN, {"recovered": False})


async def test_stream_begins_at_the_position_of_its_page() -> None:
    layer = kept()
    await layer.group_send("news", {"type": "n", "n": 1})
    since = await stream_position("news", "room:a", layer=layer)
    await layer.group_send("news", {"type": "n", "n": 2})
    with as_view(channel_layer=layer, groups=["news", "room:a"]) as application:
        async with visit(application, f"?since={since}") as client:
            opened = await client.receive_event()
            assert told(opened) == (OPEN, {"recovered": True})
            latest = await client.receive_event()
            assert told(latest) == ("n", {"n": 2})
        # The position in the header is newer than that in the address.
        async with visit(application, f"?since={since}", last=latest.id) as client:
            await client.receive_event()
            await layer.group_send("news", {"type": "n", "n": 3})
            assert told(await client.receive_event()) == ("n", {"n": 3})


async def test_position_of_groups_without_history_is_none() -> None:
    assert await stream_position("bare", layer=kept()) is None


async def test_position_needs_a_channel_layer(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    with pytest.raises(InvalidChannelLayerError, match="has no entry 'default'"):
        await stream_position("news")


# -- rights to read ---------------------------------------------------------------------------------------------------


class Rooms(EventStream):
    asked: list[str] = []

    def get_groups(self) -> list[str]:
        return [f"room:{self.kwargs['room']}", "news"]

    async def authorize(self, request: HttpRequest, name: str) -> bool:
        self.asked.append(name)
        if request.GET.get("raise"):
            raise PermissionDenied
        return "no" not in request.GET


class Threaded(Rooms):
    def authorize(self, request: HttpRequest, name: str) -> bool:  # on a thread
        return "no" not in request.GET


@pytest.mark.parametrize("cls", [Rooms, Threaded])
async def test_groups_and_rights_of_a_request(cls: type[EventStream]) -> None:
    layer = kept()
    router = URLRouter([path("events/<slug:room>/", cls.as_asgi(channel_layer=layer))])
    Rooms.asked.clear()
    async with HttpCommunicator(router, "GET", "/events/a/") as client:
        await client.receive_event(30)
        await broadcast("room:a", "hello", layer=layer)
        assert told(await client.receive_event(30)) == ("hello", {})
    assert cls is Threaded or Rooms.asked == ["room:a", "news"]
    for query in ("?no=1", *(["?raise=1"] if cls is Rooms else ())):
        async with HttpCommunicator(router, "GET", f"/events/a/{query}") as client:
            assert (await client.get_response(30))["status"] == 403


@pytest.mark.parametrize("serve", BOTH)
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("OPTIONS", 200)])
async def test_other_methods(serve: Any, method: str, status: int) -> None:
    with serve(channel_layer=kept(), groups=["news"]) as application:
        async with HttpCommunicator(application, method, "/events/") as client:
            response = await client.get_response(30)
    assert (response["status"], response["body"]) == (status, b"")


class NotFound(EventStream):
    async def get_groups(self) -> list[str]:
        from django.http import Http404

        raise Http404


async def test_application_answers_404_and_413(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MAX_BODY_SIZE": 10}
    for body, status in ((b"", 404), (b"x" * 11, 413)):
        async with HttpCommunicator(NotFound.as_asgi(), "GET", "/", body) as client:
            assert (await client.get_response(30))["status"] == status


async def test_application_serves_http_only() -> None:
    with pytest.raises(ConfigurationError, match="expects an 'http' scope"):
        await EventStream.as_asgi()({"type": "channel"}, None, None)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await EventStream.as_asgi()({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize("groups", ["news", [], [f"g{n}" for n in range(51)], ["r:" + "x" * 300]])
async def test_groups_must_be_a_list(groups: Any) -> None:
    with as_asgi(channel_layer=kept(), groups=groups) as application:
        async with visit(application) as client:
            with pytest.raises(ConfigurationError):
                await client.get_response_start()


async def test_stream_needs_a_channel_layer(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    with as_asgi(groups=["news"]) as application:
        async with visit(application) as client:
            with pytest.raises(InvalidChannelLayerError, match="has no entry 'default'"):
                await client.get_response_start()


@pytest.mark.parametrize(("name", "value"), [("heartbeat", 0), ("retry", 0), ("retry", 0.01), ("retry", float("inf"))])
async def test_times_are_seconds(name: str, value: float) -> None:
    with as_asgi(groups=["news"], **{name: value}) as application:
        async with visit(application) as client:
            with pytest.raises(ConfigurationError, match=f"EventStream.{name} must be"):
                await client.get_response_start()


# -- events -----------------------------------------------------------------------------------------------------------


class Choosing(EventStream):
    async def encode(self, event: str, payload: Any) -> Any:
        if event == "crash":
            raise ValueError("no such thing")
        return {"drop": None, "name": ("a\nb", "x"), "other": ("renamed", "y")}.get(event, "\udc80")


@pytest.mark.parametrize("event", ["crash", "name", "surrogate"])
async def test_message_that_is_no_event_is_a_gap(event: str, caplog: pytest.LogCaptureFixture) -> None:
    layer = kept()
    with as_asgi(Choosing, channel_layer=layer, groups=["news"]) as application:
        async with visit(application) as client:
            await client.receive_event()
            position = await layer.group_send("news", {"type": event})
            gap = await client.receive_event()
            assert told(gap) == (GAP, {"lost": 1, "reason": "not encoded"})
            assert gap.id == position  # the client does not ask for this message again
            await layer.group_send("news", {"type": "other"})
            assert (await client.receive_event()).event == "renamed"
    assert f"a message of type {event!r} is no event on" in caplog.text


async def test_position_moves_past_dropped_messages(autojump_clock: MockClock) -> None:
    layer = kept()
    with as_asgi(Choosing, channel_layer=layer, groups=["news"], heartbeat=5.0) as application:
        async with visit(application) as client:
            await client.receive_event()
            position = await layer.group_send("news", {"type": "drop"})
            assert await client.receive_body() == f"id: {position}\n\n".encode()
            assert await client.receive_body() == b":\n\n"
            assert await client.receive_body() == b":\n\n"


@override_settings(TEMPLATES=TEMPLATES)
async def test_template_makes_html() -> None:
    layer = kept()
    templates = {"message.new": "event_stream/message.html"}
    with as_view(channel_layer=layer, groups=["room:a"], templates=templates) as application:
        async with visit(application) as client:
            await client.receive_event()
            await broadcast("room:a", "message.new", {"text": "<b>"}, layer=layer)
            event = await client.receive_event()
            assert event.data.strip() == '<li class="message.new">&lt;b&gt;</li>'


@override_settings(TEMPLATES=TEMPLATES)
async def test_streams_hold_no_threads(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WORKER_THREADS": 1}

    class OnThreads(EventStream):
        def authorize(self, request: HttpRequest, name: str) -> bool:
            return True

    layer = kept()
    templates = {"message.new": "event_stream/message.html"}
    with as_view(OnThreads, channel_layer=layer, groups=["room:a"], templates=templates) as application:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(visit(application)) for _ in range(3)]
            for client in clients:
                await client.receive_event()
            await broadcast("room:a", "message.new", {"text": "x"}, layer=layer)
            for client in clients:
                assert "<li" in (await client.receive_event()).data


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serve", BOTH)
async def test_membership_ends_with_the_client(serve: Any) -> None:
    layer = kept()
    with serve(channel_layer=layer, groups=["news"]) as application:
        async with visit(application) as client:
            await client.receive_event()
            assert layer.statistics().memberships == 1
            await client.disconnect()
            assert layer.statistics().memberships == 0


class Slow:
    """A client that reads only the first event until `reads` is set."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._parts = 0
        self.reads = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def slowly(message: Any) -> None:
            self._parts += b"data" in message.get("body", b"")
            if self._parts > 1:
                await self.reads.wait()
            await send(message)

        await self._application(scope, receive, slowly)


@pytest.mark.parametrize(("group", "names"), [("news", []), ("bare", [GAP])])
async def test_client_that_falls_behind_is_sent_away(group: str, names: list[str]) -> None:
    layer = kept(capacity=3)
    with as_asgi(channel_layer=layer, groups=[group]) as application:
        slow = Slow(application)
        async with visit(slow) as client:
            last = await client.receive_event()
            for number in range(6):
                await layer.group_send(group, {"type": "n", "n": number})
                await wait_all_tasks_blocked()
            slow.reads.set()
            rest = (await client.get_response())["body"].decode()
        assert [line for line in rest.split("\n") if line.startswith("event: s")] == [f"event: {n}" for n in names]
        assert rest.rstrip().rpartition("\n")[2].startswith("retry: ")
        last_id = re.findall("id: (.*)", rest)
        async with visit(application, last=(last_id or [last.id])[-1] or None) as client:
            assert told(await client.receive_event()) == (OPEN, {"recovered": group == "news"})
            if group == "news":  # with the history nothing is lost
                seen = rest.count("event: n")
                assert [(await client.receive_event()).json()["n"] for _ in range(seen, 6)] == list(range(seen, 6))


class Away(InMemoryChannelLayer):
    def subscribe(self, *groups: str, **options: Any) -> Any:
        raise ChannelLayerUnavailable("Redis is away")


async def test_client_comes_back_to_a_layer_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with as_asgi(channel_layer=Away(), groups=["news"]) as application:
        async with visit(application) as client:
            response = await client.get_response()
    assert response["status"] == 200
    assert response["body"].count(b"retry: ") == 2
    assert "is sent away to come back, as the channel layer is away: Redis is away" in caplog.text


@pytest.mark.parametrize("end", [lambda mailbox: mailbox.close(), lambda mailbox: mailbox.fail("it is broken")])
async def test_stream_ends_with_its_subscription(end: Any) -> None:
    layer = kept()
    with as_asgi(channel_layer=layer, groups=["news"]) as application:
        async with visit(application) as client:
            await client.receive_event()
            await wait_all_tasks_blocked()
            (member,) = layer.mailboxes_here(group="news")
            end(*layer.mailboxes_here(channel=member.name))
            assert b"retry: " in (await client.get_response())["body"]


async def test_flushed_layer_is_a_gap() -> None:
    layer = kept()
    with as_asgi(channel_layer=layer, groups=["news"]) as application:
        async with visit(application) as client:
            await client.receive_event()
            await layer.flush()
            gap = await client.receive_event()
    assert gap.event == GAP
    assert gap.json()["reason"] == "flushed"


async def test_times_are_those_of_the_settings(settings: Any, autojump_clock: MockClock) -> None:
    settings.TRIO_CHANNELS = {"EVENT_STREAM_HEARTBEAT": 7.0, "EVENT_STREAM_RETRY": 100.0}
    with as_asgi(channel_layer=kept(), groups=["news"]) as application:
        async with visit(application) as client:
            name, _, value = (await client.receive_body()).partition(b": ")
            assert name == b"retry"
            assert 100_000 <= int(value) <= 200_000
            await client.receive_body()
            before = trio.current_time()
            assert await client.receive_body() == b":\n\n"
            assert trio.current_time() - before == 7.0

"""Connections that are closed from outside, in one process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._asgi.protocol import ASGIApplication
from trio_channels._connection.registry import connections_of, live, primary_key
from trio_channels.asgi import get_asgi_application
from trio_channels.closing import ORDERS, close_channel, close_group, close_session, close_user, orders
from trio_channels.exceptions import (
    ChannelLayerUnavailable,
    ConfigurationError,
    ConnectionClosed,
    InvalidNameError,
    TrioChannelsError,
)
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import ChannelLayer, Gap
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket

pytestmark = pytest.mark.usefixtures("channel_layer")


class User:
    """A user with no more than a primary key."""

    def __init__(self, pk: int) -> None:
        self.pk = pk


ADA, GRACE = User(1), User(2)


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "name":
            await self.send(self.channel_name)
        elif text_data == "work":
            await self.send("begins")
            await trio.sleep_forever()
        else:
            self.codes.append(0)

    async def disconnect(self, code: int) -> None:
        self.codes.append(code)


class SyncRoom(WebsocketConsumer):
    groups = ("room",)

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(self.channel_name)

    def disconnect(self, code: int) -> None:
        self.codes.append(code)


def client(application: ASGIApplication, user: User | None = ADA) -> WebsocketCommunicator:
    ws = WebsocketCommunicator(application, "/")
    ws.scope["user"] = user
    return ws


async def closed(ws: WebsocketCommunicator) -> tuple[int, str]:
    message = await ws.receive_output()
    assert message["type"] == "websocket.close"
    return message["code"], message.get("reason", "")


@pytest.mark.parametrize("room", [Room, SyncRoom])
@pytest.mark.parametrize("target", ["user", "channel", "group"])
async def test_connection_is_closed_and_its_application_told(room: Any, target: str) -> None:
    codes: list[int] = []
    async with client(room.as_asgi(codes=codes)) as ws, client(Room.as_asgi(codes=[])) as other:
        other.scope["user"] = GRACE
        await ws.connect()
        if target == "user":
            await other.connect()
            await close_user(ADA)  # type: ignore[arg-type]
        elif target == "channel":
            await other.connect()
            await ws.send_to(text_data="name")
            await close_channel(await ws.receive_from())
        else:
            await close_group("room")
        assert await closed(ws) == (4001, "")
        await ws.wait()
        if target != "group":
            await other.send_to(text_data="name")
            await other.receive_from()
    assert codes == [4001]


@pytest.mark.parametrize("user", [1, "1", ADA])
async def test_user_may_be_given_by_primary_key(user: Any) -> None:
    async with client(Room.as_asgi(codes=[])) as ws:
        await ws.connect()
        await close_user(user, code=4009, reason="banned")
        assert await closed(ws) == (4009, "banned")


async def test_connection_without_a_user_stays() -> None:
    async with client(Room.as_asgi(codes=[]), None) as ws:
        await ws.connect()
        await close_user("None")
        await ws.send_to(text_data="name")
        await ws.receive_from()


async def test_running_handler_does_not_delay_the_close(autojump_clock: trio.testing.MockClock) -> None:
    codes: list[int] = []
    async with client(Room.as_asgi(codes=codes)) as ws:
        await ws.connect()
        await ws.send_to(text_data="work")
        assert await ws.receive_from() == "begins"
        for _ in range(3):
            await ws.send_to(text_data="more")
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await close_user(1)
        assert await closed(ws) == (4001, "")
        assert trio.current_time() == before
        await ws.wait()  # the handler is cancelled after DISCONNECT_TIMEOUT; messages before are dropped
    assert codes == [4001]


async def test_socket_that_is_not_accepted_is_denied() -> None:
    class Slow(Room):
        async def connect(self) -> None:
            await trio.sleep_forever()

    async with client(Slow.as_asgi(codes=[])) as ws:
        await ws.send_input({"type": "websocket.connect"})
        await trio.testing.wait_all_tasks_blocked()
        await close_user(1)
        assert (await ws.receive_output())["type"] == "websocket.close"


async def test_second_order_and_closed_sockets_are_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_channels.closing")
    async with orders(), client(Room.as_asgi(codes=[])) as ws:
        await ws.connect()
        await close_user(1)
        await close_user(1)
        await closed(ws)
        await ws.wait()
        await close_user(1)
    assert [record.message for record in caplog.records] == ["closing 1 connections of user 1 with 4001"]


async def test_client_that_leaves_at_that_moment_is_no_error() -> None:
    codes: list[int] = []
    async with client(Room.as_asgi(codes=codes)) as ws:
        await ws.connect()
        await close_user(1)
        await ws.send_input({"type": "websocket.disconnect", "code": 1001})
        await ws.wait()
    assert codes in ([1001], [4001])


@pytest.mark.parametrize("way", ["receives", "sleeps", "sends"])
async def test_endpoint_learns_of_it(way: str) -> None:
    ended: list[str] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        try:
            if way == "sleeps":
                await trio.sleep_forever()
            elif way == "sends":
                while True:
                    await ws.send("tick")
            async for _ in ws:
                pass
            ended.append("the loop ended")
        except (ConnectionClosed, trio.Cancelled) as end:
            ended.append(f"{end.code}" if isinstance(end, ConnectionClosed) else "cancelled")
            raise

    async with client(endpoint) as ws:
        await ws.connect()
        await close_user(1)
        while (message := await ws.receive_output())["type"] == "websocket.send":
            pass
        assert message["code"] == 4001
        await ws.wait()
    expected = {"receives": ["the loop ended"], "sleeps": ["cancelled"], "sends": ["4001", "cancelled"]}[way]
    assert len(ended) == 1
    assert ended[0] in expected


async def test_subscriber_in_a_connection_is_a_member(channel_layer: ChannelLayer) -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        async def listen() -> None:
            async with channel_layer.subscribe("news") as events:
                await ws.send("joined")
                async for _ in events:
                    pass

        await ws.accept()
        ws.start_soon(listen)
        await trio.sleep_forever()

    async with channel_layer.subscribe("news") as mine, client(endpoint) as ws:
        await ws.connect()
        assert await ws.receive_from() == "joined"
        await close_group("news")
        assert await closed(ws) == (4001, "")
        await channel_layer.group_send("news", {"type": "news"})
        assert await anext(mine) == {"type": "news"}  # outside of a connection nothing ends


# -- HTTP --------------------------------------------------------------------------------------------------------------


class Stream(AsyncHttpConsumer):
    """Streams, waits before it answers, or gives the order itself."""

    def __init__(self, ended: list[str]) -> None:
        super().__init__()
        self.ended = ended

    async def handle(self, body: bytes) -> None:
        if body == b"stream":
            await self.send_headers()
            await self.send_body(b"first", more_body=True)
        if body == b"order":
            await close_user(1)
            await self.send_response(200, b"ordered")
            return
        await trio.sleep_forever()

    async def disconnect(self) -> None:
        self.ended.append("ended")


async def test_stream_of_a_consumer_breaks_off() -> None:
    ended: list[str] = []
    async with HttpCommunicator(Stream.as_asgi(ended=ended), "POST", "/", b"stream") as http:
        http.scope["user"] = ADA
        await http.get_response_start()
        assert await http.receive_body() == b"first"
        await close_user(1)
        await http.wait()
    assert ended == ["ended"]


async def test_request_that_waits_gets_403() -> None:
    async with HttpCommunicator(Stream.as_asgi(ended=[]), "POST", "/", b"wait") as http:
        http.scope["user"] = ADA
        await http.send_input({"type": "http.request", "body": b"wait"})
        await trio.testing.wait_all_tasks_blocked()
        await close_user(1)
        assert (await http.receive_output())["status"] == 403


async def test_request_that_orders_it_is_answered() -> None:
    async with HttpCommunicator(Stream.as_asgi(ended=[]), "POST", "/", b"order") as http:
        http.scope["user"] = ADA
        assert (await http.get_response())["body"] == b"ordered"


async def streaming_view(request: HttpRequest) -> StreamingHttpResponse:
    request._cached_user = ADA  # type: ignore[attr-defined]  # as Django's middleware does
    request.session = SimpleNamespace(session_key="ada's")  # type: ignore[assignment]

    async def parts() -> AsyncIterator[str]:
        yield "first"
        await trio.sleep_forever()

    return StreamingHttpResponse(parts())


async def news(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        async with channel_layers["default"].subscribe("news") as events:
            yield "joined"
            async for event in events:
                yield str(event)

    return StreamingHttpResponse(parts())


async def own_view(request: HttpRequest) -> HttpResponse:
    request._acached_user = ADA  # type: ignore[attr-defined]
    await close_user(1)
    await trio.lowlevel.checkpoint()
    return HttpResponse("ordered")


@pytest.fixture
def views() -> Any:
    urls = type("urls", (), {"urlpatterns": [path("", streaming_view), path("own/", own_view), path("news/", news)]})
    with override_settings(ROOT_URLCONF=urls):
        yield get_asgi_application()


@pytest.mark.parametrize("by", ["user", "session"])
async def test_stream_of_a_view_breaks_off(by: str, views: ASGIApplication) -> None:
    async with HttpCommunicator(views, "GET", "/") as http:
        await http.get_response_start()
        assert await http.receive_body() == b"first"
        await (close_user(2) if by == "user" else close_session("grace's", 1008, ""))
        assert await http.receive_nothing()
        await (close_user(1) if by == "user" else close_session("ada's", 1008, ""))
        await http.wait()


async def test_stream_of_a_view_that_subscribes_is_a_member(views: ASGIApplication) -> None:
    async with HttpCommunicator(views, "GET", "/news/") as http:
        await http.get_response_start()
        assert await http.receive_body() == b"joined"
        await close_group("news")
        await http.wait()


async def test_view_that_orders_it_is_answered(views: ASGIApplication) -> None:
    async with HttpCommunicator(views, "GET", "/own/") as http:
        assert (await http.get_response())["body"] == b"ordered"


async def test_worker_has_no_clients_connections() -> None:
    connections_of("channel")[cast(Any, object())] = 0.0
    assert list(live()) == []


# -- orders ------------------------------------------------------------------------------------------------------------


async def test_order_of_another_run_is_obeyed(channel_layer: ChannelLayer) -> None:
    async with orders(), client(Room.as_asgi(codes=[])) as ws:
        await ws.connect()
        await trio.to_thread.run_sync(lambda: trio.run(close_user, 1))
        assert await closed(ws) == (4001, "")


async def test_order_comes_from_a_thread() -> None:
    async with client(Room.as_asgi(codes=[])) as ws:
        await ws.connect()
        await sync_to_async(lambda: async_to_sync(close_user)(1))()
        assert await closed(ws) == (4001, "")


async def test_without_a_layer_the_own_run_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_layers, "backends", {})
    with override_settings(CHANNEL_LAYERS={}):
        async with orders(), client(AsyncWebsocketConsumer.as_asgi()) as ws:
            await ws.connect()
            await close_user(1)
            assert (await closed(ws))[0] == 4001


async def test_without_a_default_the_first_layer_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"}
    with override_settings(CHANNEL_LAYERS={"other": backend, "third": backend}):
        async with orders():
            assert channel_layers["other"].mailboxes_here(group=ORDERS)
            assert not channel_layers["third"].mailboxes_here(group=ORDERS)


@pytest.mark.parametrize("order", [{}, {"code": 1006, "reason": ""}, {"code": 4001, "reason": 3}])
async def test_malformed_order_is_logged(
    order: dict[str, Any], channel_layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async with orders():
        await channel_layer.group_send(ORDERS, {"type": "trio_channels.close", **order})
    assert [record.message for record in caplog.records] == [
        "an order to close connections is malformed, and is ignored"
    ]


async def test_lost_orders_are_logged(channel_layer: ChannelLayer, caplog: pytest.LogCaptureFixture) -> None:
    async with orders(), client(Room.as_asgi(codes=[])) as ws:
        await ws.connect()
        (mailbox,) = channel_layer.mailboxes_here(group=ORDERS)
        mailbox.put_gap(Gap(1, "the inbox was full"))
        order = {"type": "trio_channels.close", "user": "1", "code": 4001, "reason": "", "from": "another"}
        await channel_layer.group_send(ORDERS, order)
        assert await closed(ws) == (4001, "")
    assert [record.message for record in caplog.records] == [
        "orders to close connections may be lost (the inbox was full); they stay open"
    ]


async def test_layer_that_is_away_does_not_keep_the_start(channel_layer: ChannelLayer) -> None:
    class Away(InMemoryChannelLayer):
        async def group_add(self, group: str, channel: str) -> None:
            raise ChannelLayerUnavailable("Redis is away")

    channel_layers.backends["default"] = Away()
    async with orders():
        pass


async def test_layer_that_was_broken_is_heard_again(
    channel_layer: ChannelLayer, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(**_options: object) -> Any:
        raise ChannelLayerUnavailable("a task of it keeps crashing")

    async with orders():
        (mailbox,) = channel_layer.mailboxes_here(group=ORDERS)
        with monkeypatch.context() as patch:
            patch.setattr(channel_layer, "open_mailbox", unavailable)
            mailbox.fail("a task of it keeps crashing")
            await trio.sleep(10)
            assert channel_layer.mailboxes_here(group=ORDERS) == []
        await trio.sleep(10)
        assert len(channel_layer.mailboxes_here(group=ORDERS)) == 1


async def test_error_in_the_block_stays_bare() -> None:
    with pytest.raises(KeyError):
        async with orders():
            raise KeyError


async def test_request_whose_client_leaves_is_no_error() -> None:
    class Gone(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await trio.sleep_forever()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def broken(_message: Any) -> None:
            raise OSError("the client has gone")

        await Gone.as_asgi()(scope, receive, broken)

    async with HttpCommunicator(application, "GET", "/") as http:
        http.scope["user"] = ADA
        await http.send_input({"type": "http.request"})
        await trio.testing.wait_all_tasks_blocked()
        await close_user(1)
        await http.wait()


async def test_socket_whose_client_leaves_is_no_error() -> None:
    codes: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def broken(message: Any) -> None:
            if message["type"] == "websocket.close":
                raise OSError("the client has gone")
            await send(message)

        await Room.as_asgi(codes=codes)(scope, receive, broken)

    async with client(application) as ws:
        await ws.connect()
        await close_user(1)
        await trio.testing.wait_all_tasks_blocked()
        await ws.disconnect(1006)
    assert len(codes) == 1


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        (close_user, (None,), ConfigurationError),
        (close_user, (True,), ConfigurationError),
        (close_user, (User(None),), ConfigurationError),  # type: ignore[arg-type]
        (close_user, (1, 1006), ConfigurationError),
        (close_user, (1, 4001, "é" * 62), ConfigurationError),
        (close_user, (1, 4001, 3), ConfigurationError),
        (close_channel, ("not a name",), InvalidNameError),
        (close_group, ("a!b",), InvalidNameError),
    ],
)
async def test_wrong_argument_is_refused(call: Any, arguments: Any, error: type[TrioChannelsError]) -> None:
    with pytest.raises(error):
        await call(*arguments)


def test_lazy_user_that_cannot_be_loaded_is_nobody() -> None:
    class Lazy:
        @property
        def pk(self) -> int:
            raise RuntimeError("not here")

    assert primary_key(Lazy()) is None


def test_layer_of_others_has_no_mailboxes_here() -> None:
    assert ChannelLayer.mailboxes_here(InMemoryChannelLayer(), group="room") == []

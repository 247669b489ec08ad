"""The whole stack over a real socket: hypercorn's Trio worker, trio-websocket and h11 as clients."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
from django.contrib.auth import authenticate
from django.contrib.auth import login as django_login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from hypercorn.utils import LifespanFailureError
from trio_websocket import ConnectionClosed, ConnectionRejected

from trio_channels import WebSocket, websocket
from trio_channels import exceptions as errors
from trio_channels.asgi import get_asgi_application
from trio_channels.auth import AuthMiddlewareStack, login
from trio_channels.exceptions import DenyConnection
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.security.websocket import AllowedHostsOriginValidator
from trio_channels.sync import sync_to_async

from .conftest import Serve, Server, next_event

ROOT = Path(__file__).resolve().parents[3]


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


async def until(condition: Callable[[], object]) -> None:
    """Wait until the server has met a condition."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def closed(client: Any) -> Any:
    """The close frame that the client gets."""
    while True:
        try:
            await client.get_message()
        except ConnectionClosed as ended:
            return ended.reason


# -- the handshake ----------------------------------------------------------------------------------------------------


async def test_chosen_subprotocol_and_headers_reach_the_client(serve: Serve) -> None:
    class Chooses(Echo):
        async def connect(self) -> None:
            assert self.scope["subprotocols"] == ["one", "two"]
            await self.accept("two", headers=[(b"x-mine", b"1")])

    server = await serve(Chooses.as_asgi())
    async with server.websocket("/", subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
        assert (b"x-mine", b"1") in client.handshake_headers


async def test_foreign_origin_is_denied_before_application_code(serve: Serve) -> None:
    reached: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    server = await serve(ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(application)}))
    for origin in ([], [(b"origin", b"http://evil.test")], [(b"origin", b"null")]):
        with pytest.raises(ConnectionRejected) as rejected:
            async with server.websocket("/", extra_headers=origin):
                pass
        assert rejected.value.status_code == 403
    assert reached == []


async def test_own_origin_is_let_in(serve: Serve) -> None:
    server = await serve(ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(Echo.as_asgi())}))
    async with server.websocket("/", extra_headers=[(b"origin", b"http://localhost:8000")]) as client:
        await client.send_message("hello")
        assert await client.get_message() == "hello"


async def test_denial_carries_the_applications_own_response(serve: Serve) -> None:
    class Denies(Echo):
        async def connect(self) -> None:
            raise DenyConnection(429, [(b"retry-after", b"5"), (b"content-length", b"6")], b"slowly")

    server = await serve(Denies.as_asgi())
    with pytest.raises(ConnectionRejected) as rejected:
        async with server.websocket("/"):
            pass
    assert rejected.value.status_code == 429
    assert rejected.value.body == b"slowly"
    assert (b"retry-after", b"5") in rejected.value.headers


@pytest.mark.parametrize("way", ["DenyConnection", "close"])
async def test_plain_denial_is_a_403_and_disconnect_runs(way: str, serve: Serve) -> None:
    codes: list[int] = []

    class Denies(Echo):
        async def connect(self) -> None:
            if way == "close":
                await self.close()
            else:
                raise DenyConnection

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = await serve(Denies.as_asgi())
    with pytest.raises(ConnectionRejected) as rejected:
        async with server.websocket("/"):
            pass
    assert rejected.value.status_code == 403
    await until(lambda: codes)


async def test_no_route_is_a_403_for_a_websocket_and_a_404_for_a_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(ProtocolTypeRouter({"websocket": URLRouter([]), "http": URLRouter([])}))
    with pytest.raises(ConnectionRejected) as rejected:
        async with server.websocket("/nowhere/"):
            pass
    assert rejected.value.status_code == 403
    assert (await server.request("GET", "/nowhere/")).status == 404
    assert [record.name for record in caplog.records] == ["trio_channels.routing"] * 2


# -- messages ---------------------------------------------------------------------------------------------------------


async def test_text_and_bytes_arrive_as_they_were_sent(serve: Serve) -> None:
    server = await serve(Echo.as_asgi())
    async with server.websocket("/") as client:
        for message in ["", "ä€😀", b"", b"\x00\xff", "x" * 200_000, os.urandom(200_000)]:
            await client.send_message(message)
            assert await client.get_message() == message


async def test_synchronous_consumer_answers_in_order(serve: Serve) -> None:
    class Sync(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for n in range(3):
                self.send(text_data=f"{text_data} {n}")

    server = await serve(Sync.as_asgi())
    async with server.websocket("/") as client:
        for name in "ab":
            await client.send_message(name)
        assert [await client.get_message() for _ in range(6)] == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"]


async def test_json_is_answered_and_what_is_none_closes_with_1007(serve: Serve) -> None:
    class Json(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await self.send_json([content])

    server = await serve(Json.as_asgi())
    async with server.websocket("/") as client:
        await client.send_message('{"a": "ä"}')
        assert await client.get_message() == '[{"a": "ä"}]'
        await client.send_message("{")
        assert (await closed(client)).code == 1007


async def test_websocket_without_a_class_talks_to_a_real_client(serve: Serve) -> None:
    ended = trio.Event()

    @websocket
    async def shout(ws: WebSocket) -> None:
        await ws.accept()
        try:
            async for message in ws:
                await ws.send(str(message).upper())
        finally:
            ended.set()

    server = await serve(shout)
    async with server.websocket("/") as client:
        await client.send_message("hello")
        assert await client.get_message() == "HELLO"
    await ended.wait()


# -- closing ----------------------------------------------------------------------------------------------------------


async def test_applications_close_code_and_reason_reach_the_client(serve: Serve) -> None:
    codes: list[int] = []

    class Closes(Echo):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.close(4001, "bye")

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = await serve(Closes.as_asgi())
    async with server.websocket("/") as client:
        await client.send_message("x")
        reason = await closed(client)
    assert (reason.code, reason.reason) == (4001, "bye")
    await until(lambda: codes)
    # Although hypercorn confirms every close by the application with 1000 in its disconnect event.
    assert codes == [4001]


async def test_hypercorn_loses_the_clients_close_code_and_says_1006(serve: Serve) -> None:
    """hypercorn issue 127. If this fails, the documentation of ``disconnect`` can lose a sentence."""
    codes: list[int] = []

    class Notes(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = await serve(Notes.as_asgi())
    async with server.websocket("/") as client:
        await client.aclose(4001, "bye")
    await until(lambda: codes)
    assert codes == [1006]


async def test_client_whose_connection_breaks_is_a_disconnect_with_1006(serve: Serve) -> None:
    codes: list[int] = []

    class Notes(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = await serve(Notes.as_asgi())
    async with trio.open_nursery() as nursery:
        client = await raw_websocket(server)
        await client.aclose()
        nursery.cancel_scope.cancel()
    await until(lambda: codes)
    assert codes == [1006]


async def raw_websocket(server: Server, where: str = "/") -> trio.SocketStream:
    """A client that has shaken hands, and then does nothing by itself."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(
        f"GET {where} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101")
    return stream


# -- failures ---------------------------------------------------------------------------------------------------------


class Crashes(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise LookupError("in the handler")


class CrashesInThread(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise LookupError("in the handler")


class CrashesInBackground(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.start_soon(self.fail)

    async def fail(self) -> None:
        raise LookupError("in the handler")


@pytest.mark.parametrize("consumer", [Crashes, CrashesInThread, CrashesInBackground])
async def test_failure_is_1011_and_one_log_record(
    consumer: Any, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(URLRouter([path("room/<int:n>/", consumer.as_asgi()), path("echo/", Echo.as_asgi())]))
    async with server.websocket("/echo/") as neighbour:
        async with server.websocket("/room/7/") as client:
            port = client.local.port
            await client.send_message("x")
            assert (await closed(client)).code == 1011
        await until(lambda: caplog.records)
        await neighbour.send_message("still there")
        assert await neighbour.get_message() == "still there"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tests.integration.server", logging.ERROR)
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, LookupError), "bare, and not in a group"
    assert f"websocket /room/7/ from 127.0.0.1:{port}" in error.__notes__[-1]
    assert "LookupError: in the handler" in caplog.text
    assert f"/room/7/ from 127.0.0.1:{port}" in caplog.text, "the note is in the log"


async def test_failure_in_connect_is_500_and_one_log_record(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Echo):
        async def connect(self) -> None:
            raise LookupError("in connect")

    server = await serve(Fails.as_asgi())
    with pytest.raises(ConnectionRejected) as rejected:
        async with server.websocket("/"):
            pass
    assert rejected.value.status_code == 500
    await until(lambda: caplog.records)
    assert [record.name for record in caplog.records] == ["tests.integration.server"]


async def test_failing_request_is_500_and_one_log_record(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError("in handle")

    server = await serve(Fails.as_asgi())
    assert (await server.request("GET", "/")).status == 500
    assert [record.name for record in caplog.records] == ["tests.integration.server"]


async def test_client_that_leaves_in_the_middle_of_a_handler(serve: Serve) -> None:
    """The handler finishes, then ``disconnect`` runs, then the groups are left."""
    layer = InMemoryChannelLayer()
    entered, go_on = trio.Event(), trio.Event()
    notes: list[str] = []
    consumers: list[AsyncWebsocketConsumer] = []

    class Slow(Echo):
        channel_layer = layer
        groups = ("room",)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            consumers.append(self)
            entered.set()
            await go_on.wait()
            notes.append("handler finished")
            await self.send(text_data="too late")
            notes.append("not reached")

        async def disconnect(self, code: int) -> None:
            notes.append(f"disconnect, {layer.statistics().memberships} member")

    server = await serve(Slow.as_asgi())
    async with server.websocket("/") as client:
        await client.send_message("x")
        await entered.wait()
    await consumers[0]._connection.disconnected.wait()  # the client is told before the application is
    assert notes == []
    go_on.set()
    await until(lambda: layer.statistics().channels == 0)
    assert notes == ["handler finished", "disconnect, 1 member"]
    assert layer.statistics().groups == 0


async def test_handler_that_sends_on_freezes_nobody(serve: Serve) -> None:
    """hypercorn's send to a gone client is a silent no-op without a checkpoint; a loop around it stopped a worker."""
    ended: list[BaseException] = []

    class Floods(Echo):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                while True:
                    await self.send(text_data="x" * 1000)
            except errors.ConnectionClosed as error:
                ended.append(error)

    server = await serve(URLRouter([path("floods/", Floods.as_asgi()), path("echo/", Echo.as_asgi())]))
    async with server.websocket("/echo/") as neighbour:
        client = await raw_websocket(server, "/floods/")
        await client.send_all(b"\x81\x81\0\0\0\0x")  # one masked text frame
        assert await client.receive_some()
        await client.aclose()
        for n in range(10):
            await neighbour.send_message(str(n))
            assert await neighbour.get_message() == str(n)
        await until(lambda: ended)


# -- rooms ------------------------------------------------------------------------------------------------------------


async def test_two_hundred_clients_get_each_message_once(serve: Serve) -> None:
    clients, messages = 200, 20
    layer = InMemoryChannelLayer()

    class Room(Echo):
        channel_layer = layer
        groups = ("room",)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await layer.group_send("room", {"type": "room.message", "text": text_data})

        async def room_message(self, event: Any) -> None:
            await self.send(text_data=event["text"])

    server = await serve(Room.as_asgi(), backlog=1000)
    received: list[list[Any]] = []

    async def member() -> None:
        async with server.websocket("/") as client:
            mine = [await client.get_message() for _ in range(messages)]
            received.append(mine)
            await all_received.wait()  # nobody gets one more
            with trio.move_on_after(0):
                mine.append(await client.get_message())

    all_received = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(member)
        await until(lambda: layer.statistics().memberships == clients)
        async with server.websocket("/") as talker:
            for n in range(messages):
                await talker.send_message(str(n))
                assert await talker.get_message() == str(n)
            await until(lambda: len(received) == clients)
            all_received.set()
    assert received == [[str(n) for n in range(messages)]] * clients
    await until(lambda: layer.statistics().channels == 0)


# -- HTTP beside WebSockets -------------------------------------------------------------------------------------------


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def hello_from_trio(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    return HttpResponse("hello from trio")


def echo_body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


def log_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=403)
    django_login(request, user)
    request.session["colour"] = "blue"
    return HttpResponse("welcome")


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.user.get_username()}, {request.session.get('colour')}")


closed_streams: list[str] = []


def stream_for_ever(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await trio.sleep(0.001)
        finally:
            closed_streams.append("closed")

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("hello/", hello),
    path("trio/", hello_from_trio),
    path("echo_body/", echo_body),
    path("login/", log_in),
    path("who/", who),
    path("stream/", stream_for_ever),
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def project() -> Any:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE):
        yield get_asgi_application()


async def test_views_are_served_beside_websockets(serve: Serve, project: Any) -> None:
    server = await serve(ProtocolTypeRouter({"http": project, "websocket": Echo.as_asgi()}))
    async with server.websocket("/") as client:
        for where, body in (("/hello/", b"hello"), ("/trio/", b"hello from trio")):
            response = await server.request("GET", where)
            assert (response.status, response.body) == (200, body)
            await client.send_message(where)
            assert await client.get_message() == where
    assert (await server.request("GET", "/nowhere/")).status == 404
    assert (await server.request("HEAD", "/hello/")).body == b""


async def test_large_body_arrives_whole(serve: Serve, project: Any) -> None:
    body = os.urandom(3_000_000)
    server = await serve(project)
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        response = await server.request("POST", "/echo_body/", body=body)
    assert response.body == body


async def test_body_beyond_the_limit_is_413(serve: Serve, project: Any) -> None:
    server = await serve(project)
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 1000}):
        assert (await server.request("POST", "/echo_body/", body=b"x" * 5000)).status == 413
        assert (await server.request("POST", "/echo_body/", body=b"x" * 500)).status == 200


async def test_client_that_leaves_in_a_stream_has_it_closed(serve: Serve, project: Any) -> None:
    closed_streams.clear()
    server = await serve(project)
    stream, parser = await server.send_request("GET", "/stream/")
    assert (await next_event(stream, parser)).status_code == 200
    assert bytes((await next_event(stream, parser)).data).startswith(b"tick\n")
    await stream.aclose()
    await until(lambda: closed_streams)


async def test_long_poll_is_answered_when_there_is_news(serve: Serve) -> None:
    layer = InMemoryChannelLayer()

    class Poll(AsyncHttpConsumer):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"content-type", b"text/plain")])
            await self.send_body(b"", more_body=True)
            await layer.group_add("news", self.channel_name)

        async def news_item(self, event: Any) -> None:
            await self.send_body(event["text"].encode())

    server = await serve(Poll.as_asgi())
    responses: list[Any] = []

    async def poll() -> None:
        responses.append(await server.request("GET", "/"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(poll)
        await until(lambda: layer.statistics().memberships == 3)
        await layer.group_send("news", {"type": "news.item", "text": "something happened"})
    assert [response.body for response in responses] == [b"something happened"] * 3
    await until(lambda: layer.statistics().channels == 0)


async def test_server_sent_events_arrive_until_the_client_leaves(serve: Serve) -> None:
    layer = InMemoryChannelLayer()
    left: list[str] = []

    class Events(AsyncHttpConsumer):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
            await self.send_body(b"", more_body=True)
            await layer.group_add("news", self.channel_name)

        async def news_item(self, event: Any) -> None:
            await self.send_body(b"data: %d\n\n" % event["n"], more_body=True)

        async def disconnect(self) -> None:
            left.append("yes")

    server = await serve(Events.as_asgi())
    stream, parser = await server.send_request("GET", "/")
    await until(lambda: layer.statistics().memberships == 1)
    for n in range(3):
        await layer.group_send("news", {"type": "news.item", "n": n})
        while not isinstance(event := await next_event(stream, parser), h11.Data) or not event.data:
            pass
        assert bytes(event.data) == b"data: %d\n\n" % n
    await stream.aclose()
    await until(lambda: layer.statistics().channels == 0)
    assert left == ["yes"]


class WhoAmI(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        user, session = self.scope["user"], self.scope["session"]
        await self.send(text_data=f"{user.get_username()}, {session.get('colour')}")


def cookie_header(cookies: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()).encode())]


@pytest.mark.usefixtures("blocking_queries")
async def test_login_over_http_is_known_to_a_websocket(transactional_db: None, serve: Serve, project: Any) -> None:
    User.objects.create_user("ada", password="engine")
    server = await serve(ProtocolTypeRouter({"http": project, "websocket": AuthMiddlewareStack(WhoAmI.as_asgi())}))
    assert (await server.post("/login/", name="ada", password="wrong")).status == 403
    welcome = await server.post("/login/", name="ada", password="engine")
    assert welcome.status == 200
    async with server.websocket("/", extra_headers=cookie_header(welcome.cookies)) as client:
        assert await client.get_message() == "ada, blue"
    async with server.websocket("/") as stranger:
        assert await stranger.get_message() == ", None"


@pytest.mark.usefixtures("blocking_queries")
async def test_login_over_a_websocket_is_known_to_the_next_request(
    transactional_db: None, serve: Serve, project: Any
) -> None:
    User.objects.create_user("ada")

    class LogsIn(Echo):
        async def connect(self) -> None:
            await login(self.scope, await sync_to_async(User.objects.get)(username="ada"))
            self.scope["session"]["colour"] = "red"
            await self.accept()

    server = await serve(ProtocolTypeRouter({"http": project, "websocket": AuthMiddlewareStack(LogsIn.as_asgi())}))
    async with server.websocket("/") as client:
        cookies = [value.split(b";")[0] for name, value in client.handshake_headers if name == b"set-cookie"]
        response = await server.request("GET", "/who/", [(b"cookie", cookies[0])])
    assert response.body == b"ada, red"


# -- start and stop of the server -------------------------------------------------------------------------------------


async def test_layer_that_cannot_be_opened_stops_the_start(caplog: pytest.LogCaptureFixture) -> None:
    from .conftest import config_for_tests

    with (
        override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "no.such.Layer"}}),
        pytest.raises((LifespanFailureError, ExceptionGroup)) as failed,
    ):
        await trio_serve(ProtocolTypeRouter({}), config_for_tests())
    assert "no.such.Layer" in repr(failed.value)
    assert not [record for record in caplog.records if record.name == "trio_channels.lifespan"]  # the server reports it


async def trio_serve(application: Any, config: Any) -> None:
    from hypercorn.trio import serve as hypercorn_serve

    await hypercorn_serve(application, config)


async def test_stopping_server_sends_1012_and_runs_disconnect(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    codes: list[int] = []

    class Notes(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = await serve(Notes.as_asgi(), graceful_timeout=0.01)
    async with server.websocket("/") as client:
        server.stop.set()
        assert (await closed(client)).code == 1012
    await until(lambda: codes)
    assert codes == [1012]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# -- a process --------------------------------------------------------------------------------------------------------


async def test_hypercorn_process_serves_and_stops_on_sigterm() -> None:
    command = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0"]
    command += ["--graceful-timeout", "1", "tests.integration.server.application:application"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.integration.server.settings"}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_start, command, environment)
        output = Output(process.stderr)
        nursery.start_soon(output.read)
        try:
            port = await output.wait_for(rb"Running on http://127\.0\.0\.1:(\d+) ")
            server = Server(int(port))
            assert (await server.request("GET", "/hello/")).body == b"hello"
            async with server.websocket("/echo/") as client:
                await client.send_message("hello")
                assert await client.get_message() == "hello"
                process.send_signal(signal.SIGTERM)
                assert (await closed(client)).code == 1012
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        await output.ended.wait()
    assert process.returncode == 0, output.text
    assert b"disconnected 1012" in output.text
    assert b"Traceback" not in output.text


async def _start(command: list[str], environment: dict[str, str], *, task_status: Any) -> None:
    process = await trio.lowlevel.open_process(command, cwd=ROOT, env=environment, stderr=-1)
    task_status.started(process)


class Output:
    """The output of a process."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.text = b""
        self.ended = trio.Event()
        self._more = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        async with self.stream:
            async for data in self.stream:
                self.text += data
                self._more.unpark_all()
        self.ended.set()
        self._more.unpark_all()

    async def wait_for(self, pattern: bytes) -> str:
        while (found := re.search(pattern, self.text)) is None:
            if self.ended.is_set():
                raise AssertionError(f"the process ended: {self.text.decode()}")
            await self._more.park()
        return found[1].decode()
